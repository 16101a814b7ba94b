"""Score a separated sound against the sound alone."""

from __future__ import annotations

import numpy as np

from attnviz.arguments import public
from attnviz.audio.mel import checked_audio
from attnviz.errors import AudioError

_LIMIT = 120.0  # dB; beyond the precision of float32 samples


@public
def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Compute the scale-invariant signal-to-distortion ratio (SI-SDR) of a separated sound.

    Parameters
    ----------
    estimate : numpy.ndarray, shape (samples,)
        Separated sound.
    reference : numpy.ndarray, shape (samples,)
        The sound alone.

    Returns
    -------
    float
        ``10 log10(|a r|^2 / |e - a r|^2)`` with ``a = <e, r> / <r, r>``, in dB, limited to -120 and 120. NaN if
        the reference is silent.

    Raises
    ------
    AudioError
        If a signal is not one channel of finite samples, or their lengths differ.

    References
    ----------
    J. Le Roux et al., "SDR - half-baked or well done?" (arXiv 1811.02508). Like the authors, no mean is removed.

    Examples
    --------
    >>> time = np.arange(16_000) / 16_000
    >>> tone, other = np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 1000 * time)
    >>> round(si_sdr(3 * tone + 0.3 * other, tone), 6)
    20.0
    """
    made, alone = (checked_audio(one).astype(np.float64) for one in (estimate, reference))
    if made.shape != alone.shape:
        raise AudioError(
            f"estimate has {made.size} samples, and reference has {alone.size}; both must be of the same clip at "
            "the same sampling rate."
        )
    power = float(alone @ alone)
    if power == 0:
        return float("nan")
    target = (made @ alone) / power * alone
    kept, distortion = float(target @ target), float(np.square(made - target).sum())
    if distortion == 0:
        return _LIMIT if kept > 0 else -_LIMIT
    with np.errstate(divide="ignore"):
        return float(np.clip(10 * np.log10(kept / distortion), -_LIMIT, _LIMIT))
