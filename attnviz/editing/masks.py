"""Masks of a spectrogram: a time span, a frequency band, or both."""

from __future__ import annotations

import numpy as np

from attnviz.audio import SpectrogramGrid
from attnviz.errors import AudioError


def time_frequency_mask(
    span: tuple[float, float] | None, band: tuple[float, float] | None, seconds: float
) -> np.ndarray:
    """Mask a span of time, a band of frequencies, or the box of both.

    Parameters
    ----------
    span : (float, float) or None
        Start and end in seconds; None: the whole clip.
    band : (float, float) or None
        Lowest and highest frequency in Hz; None: all.
    seconds : float
        Length of the clip.

    Returns
    -------
    numpy.ndarray, shape (256, 1024), bool
        Lowest band first.

    Raises
    ------
    AudioError
        If neither is given, one is empty or outside the clip, or the two cover nothing or everything of it.
    """
    if span is None and band is None:
        raise AudioError(
            "Nothing is selected to regenerate: give a time span (--span), a frequency band (--band), or both."
        )
    grid = SpectrogramGrid()
    time, freq = grid.time(grid.width), grid.freq(grid.bands)
    start, end = span or (0.0, seconds)
    low, high = band or (grid.fmin, grid.fmax)
    # NaN is in no order.
    if not 0 <= start < end <= seconds:
        raise AudioError(f"The span {start:g} to {end:g} s is not inside the clip, which is {seconds:g} s long.")
    if not grid.fmin <= low < high <= grid.fmax:
        raise AudioError(
            f"The band {low:g} to {high:g} Hz is not inside {grid.fmin:g} to {grid.fmax:g} Hz, the lowest first."
        )
    mask = ((freq >= low) & (freq <= high))[:, None] & ((time >= start) & (time < end))
    if not mask.any():
        raise AudioError(
            f"{start:g} to {end:g} s and {low:g} to {high:g} Hz cover nothing: no cell of 10 ms and one mel band "
            "has its centre there. Widen it."
        )
    if mask[:, time < seconds].all():
        raise AudioError(
            "The whole clip would be regenerated, so there is nothing to keep. Choose a part, or edit all of it "
            "towards a prompt: attnviz edit style."
        )
    return mask
