"""Where a sound is audible: the rule behind the ground truth of composed scenes.

A frame of 10 ms, one column of the spectrogram, is **audible** when its level is within `range_db` of the
loudest frame of the same sound and above the absolute floor `floor_db`. Shorter silences than `min_gap`
between audible frames are filled; nothing else is smoothed.

The level is weighted as the ear hears: the bass falls off by the A curve of IEC 61672 (-19 dB at 100 Hz, -11 dB
at 200 Hz), without the curve's fall above 10 kHz. Unweighted, the rumble in a recording of a clock outlasts its
ticks. The weighting rings: a sudden end may be seen one frame late.

Why 30 dB, the default: recordings have room noise. Median share of audible frames on folds 1-4 of ESC-10:

==============  =====  =====  =====  =====
class           20 dB  25 dB  30 dB  40 dB
==============  =====  =====  =====  =====
Rooster         0.33   0.35   0.37   0.41
Person sneeze   0.09   0.11   0.12   0.15
Dog bark        0.22   0.27   0.31   0.48
Baby cry        0.58   0.64   0.74   0.83
Clock tick      0.13   0.16   0.21   0.59
Fire crackling  0.05   0.10   0.34   1.00
==============  =====  =====  =====  =====

Rain, sea, helicopter and chainsaw are audible throughout either way. Short sounds keep their decay at 30 dB and
change little around it; at 40 dB the silence between ticks and barks is lost in the noise of the room.
Why gaps of 150 ms: a listener hears syllables and fast ticks as one sound, and annotated corpora do the same.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.signal

from attnviz.audio import MEL
from attnviz.errors import AudioError

Intervals = tuple[tuple[float, float], ...]
"""Onsets and offsets in seconds, ascending, not touching."""

FRAME_SECONDS = MEL.hop_length / MEL.sample_rate
"""Seconds of a frame: one column of the spectrogram."""

_POWER_FLOOR = 1e-20  # -200 dB: digital silence has a level, too


def frame_levels(audio: np.ndarray, sample_rate: int = MEL.sample_rate, *, weighted: bool = True) -> np.ndarray:
    """Return the level of each whole 10-ms frame.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point.
    sample_rate : int
        Samples a second, a multiple of 100.
    weighted : bool
        Whether the bass counts less, as the ear hears it.

    Returns
    -------
    numpy.ndarray
        ``(frames,)`` float64, mean power in dB: 0 is a full-scale square wave, -200 digital silence.
    """
    hop = round(sample_rate * FRAME_SECONDS)
    samples = audio[: audio.size // hop * hop].astype(np.float64)
    if weighted and samples.size:
        samples = scipy.signal.sosfilt(_weighting(sample_rate), samples)
    return 10 * np.log10(np.mean(samples.reshape(-1, hop) ** 2, axis=1) + _POWER_FLOOR)


def audible_frames(
    audio: np.ndarray,
    sample_rate: int = MEL.sample_rate,
    *,
    range_db: float = 30.0,
    floor_db: float = -70.0,
    min_gap: float = 0.15,
) -> np.ndarray:
    """Return in which frames a sound that stands alone in `audio` is audible.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point: one sound, with silence around it or not.
    sample_rate : int
        Samples a second, a multiple of 100.
    range_db : float
        How far below its loudest frame the sound is still audible, in dB.
    floor_db : float
        Level below which nothing is audible, in dB relative to full scale.
    min_gap : float
        Seconds; shorter silences between audible frames are filled.

    Returns
    -------
    numpy.ndarray
        ``(frames,)`` bool, one for each whole 10 ms. All False for silence.

    Raises
    ------
    AudioError
        `audio` is shorter than one frame.
    """
    levels = frame_levels(audio, sample_rate)
    if levels.size == 0:
        raise AudioError(f"the sound has {audio.size} samples at {sample_rate} Hz; at least 10 ms are needed.")
    audible = levels >= max(levels.max() - range_db, floor_db)
    shortest = round(min_gap / FRAME_SECONDS)
    for start, end in _runs(~audible):
        if start > 0 and end < audible.size and end - start < shortest:
            audible[start:end] = True
    return audible


def frame_intervals(audible: np.ndarray, frame_seconds: float = FRAME_SECONDS) -> Intervals:
    """Return the runs of True frames as intervals in seconds.

    Examples
    --------
    >>> frame_intervals(np.array([False, True, True, False, True]))
    ((0.01, 0.03), (0.04, 0.05))
    """
    return tuple((round(start * frame_seconds, 6), round(end * frame_seconds, 6)) for start, end in _runs(audible))


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


@lru_cache(maxsize=8)
def _weighting(sample_rate: int) -> np.ndarray:
    """Return the A curve's fall to the bass as second-order sections, 0 dB at 1 kHz."""
    poles = -2 * np.pi * np.array([20.598997, 20.598997, 107.65265, 737.86223])
    digital = scipy.signal.bilinear_zpk(np.zeros(4), poles, 1.0, sample_rate)
    sections = scipy.signal.zpk2sos(*digital)
    _, response = scipy.signal.freqz_sos(sections, [1000.0], fs=sample_rate)
    sections[0, :3] /= abs(response[0])
    return sections
