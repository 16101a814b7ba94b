"""Detect where a sound is audible, which defines the ground truth of composed scenes.

A frame of 10 ms (one column of the spectrogram) is **audible** if its level is within `range_db` of the loudest
frame of the same sound and above the absolute floor `floor_db`. Gaps between audible frames that are shorter than
`min_gap` are filled. No other smoothing is applied.

Levels use the low-frequency part of the A-weighting curve of IEC 61672 (-19 dB at 100 Hz, -11 dB at 200 Hz),
without its attenuation above 10 kHz. Without weighting, the rumble in a recording of a clock would remain audible
after the ticks. The weighting filter rings, so a sudden offset may be detected one frame late.

The default range of 30 dB accounts for room noise. Median share of audible frames on folds 1-4 of ESC-10:

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

Rain, sea waves, helicopter and chainsaw are audible throughout at each of these ranges. At 30 dB, short sounds
keep their decay, and the share changes little with the range. At 40 dB, room noise fills the silence between ticks
and barks. Gaps of up to 150 ms are filled because people hear syllables and fast ticks as one sound, and annotated
corpora follow the same convention.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.signal

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.audio.settings import whole_number
from attnviz.errors import AudioError

Intervals = tuple[tuple[float, float], ...]
"""Onsets and offsets in seconds, in ascending order and disjoint."""

FRAME_SECONDS = MEL.hop_length / MEL.sampling_rate
"""Length of a frame in seconds, one column of the spectrogram."""

_POWER_FLOOR = 1e-20  # -200 dB, so that digital silence has a finite level


def frame_levels(
    audio: np.ndarray, sampling_rate: int = MEL.sampling_rate, *, weighted: bool = True
) -> np.ndarray:
    """Return the level of each whole 10-ms frame.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point.
    sampling_rate : int
        Sampling rate in Hz, a multiple of 100.
    weighted : bool
        Apply the low-frequency part of the A-weighting curve.

    Returns
    -------
    numpy.ndarray
        ``(frames,)`` float64, mean power in dB. A full-scale square wave has 0 dB, digital silence -200 dB.
    """
    if whole_number("sampling_rate", sampling_rate) % 100:
        raise AudioError(f"sampling_rate is {sampling_rate} Hz; a multiple of 100 is needed, for frames of 10 ms.")
    hop = round(sampling_rate * FRAME_SECONDS)
    samples = audio[: audio.size // hop * hop].astype(np.float64)
    if weighted and samples.size:
        samples = scipy.signal.sosfilt(_weighting(sampling_rate), samples)
    return 10 * np.log10(np.mean(samples.reshape(-1, hop) ** 2, axis=1) + _POWER_FLOOR)


@public
def audible_frames(
    audio: np.ndarray,
    sampling_rate: int = MEL.sampling_rate,
    *,
    range_db: float = 30.0,
    floor_db: float = -70.0,
    min_gap: float = 0.15,
) -> np.ndarray:
    """Return the frames in which an isolated sound is audible.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point: one sound, optionally surrounded by silence.
    sampling_rate : int
        Sampling rate in Hz, a multiple of 100.
    range_db : float
        Range below the loudest frame, in dB, in which the sound is audible.
    floor_db : float
        Level in dB relative to full scale below which every sound is inaudible.
    min_gap : float
        Length in seconds below which gaps between audible frames are filled.

    Returns
    -------
    numpy.ndarray
        ``(frames,)`` bool, one per whole 10-ms frame. All False for silence.

    Raises
    ------
    AudioError
        If `audio` is shorter than one frame, or `sampling_rate` is no multiple of 100.
    """
    levels = frame_levels(audio, sampling_rate)
    if levels.size == 0:
        raise AudioError(f"the sound has {audio.size} samples at {sampling_rate} Hz; at least 10 ms are needed.")
    audible = levels >= max(levels.max() - range_db, floor_db)
    shortest = round(min_gap / FRAME_SECONDS)
    for start, end in _runs(~audible):
        if start > 0 and end < audible.size and end - start < shortest:
            audible[start:end] = True
    return audible


@public
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
def _weighting(sampling_rate: int) -> np.ndarray:
    """Return the low-frequency part of the A-weighting curve as second-order sections, 0 dB at 1 kHz."""
    poles = -2 * np.pi * np.array([20.598997, 20.598997, 107.65265, 737.86223])
    digital = scipy.signal.bilinear_zpk(np.zeros(4), poles, 1.0, sampling_rate)
    sections = scipy.signal.zpk2sos(*digital)
    _, response = scipy.signal.freqz_sos(sections, [1000.0], fs=sampling_rate)
    sections[0, :3] /= abs(response[0])
    return sections
