"""Compute the level of audio in dB of full scale, and warn of audio that is inaudible or clipped."""

from __future__ import annotations

import numpy as np

from attnviz.audio.settings import MEL
from attnviz.errors import AudioError, ClippingWarning, InaudibleWarning, warn

INAUDIBLE_DBFS = -50.0
"""Audio counts as inaudible if its loudest 0.4 s stay below this level, in dB of full scale (RMS)."""

WINDOW_SECONDS = 0.4
"""Window of a level: that of the momentary loudness of ITU-R BS.1771, without its weighting."""

LOWEST_DBFS = -120.0
"""Lower limit of levels, used for digital silence."""

FULL_SCALE = 1 - 2**-15
"""Largest sample of a 16-bit file. A file does not hold larger ones, and the vocoder saturates there."""

CLIPPED_MS = 10.0
"""Audio counts as clipped if more than this is at full scale, in ms. Generations of the bundled model at its
recommended settings have at most 8 ms in 10 s (`benchmarks/diagnosis.py`)."""


def levels(
    samples: np.ndarray, hop_length: int = MEL.hop_length, sampling_rate: int = MEL.sampling_rate
) -> np.ndarray:
    """Compute the level around each frame of a waveform.

    Parameters
    ----------
    samples : numpy.ndarray, shape (samples,)
        Waveform, full scale at 1.
    hop_length : int
        Samples per frame.
    sampling_rate : int
        Samples per second.

    Returns
    -------
    numpy.ndarray, shape (frames,), float64
        Root mean square over the 0.4 s around each frame's centre, in dB of full scale; at the ends, over the
        first or last 0.4 s. A sine of amplitude 1 has -3.01. The minimum is -120.

    Raises
    ------
    AudioError
        If there are no samples.
    """
    power = np.square(np.asarray(samples, dtype=np.float64))
    if power.ndim != 1 or not power.size:
        raise AudioError(f"A level needs a waveform of shape (samples,); got the shape {power.shape}.")
    centres = hop_length * (np.arange(-(-power.size // hop_length)) + 0.5)
    return _decibels(_around(power, centres, WINDOW_SECONDS * sampling_rate))


def loudest_level(samples: np.ndarray, sampling_rate: int = MEL.sampling_rate) -> float:
    """Return the level of the loudest 0.4 s of a waveform (all of a shorter one), in dB of full scale.

    Examples
    --------
    >>> tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    >>> round(loudest_level(tone), 1), round(loudest_level(np.concatenate([np.zeros(80_000), tone])), 1)
    (-23.0, -23.0)
    """
    return float(levels(samples, sampling_rate=sampling_rate).max())


def mel_levels(log_mel: np.ndarray) -> np.ndarray:
    """Estimate the level around each frame of a log-mel spectrogram.

    Parameters
    ----------
    log_mel : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrogram of magnitudes, as computed by `attnviz.audio.log_mel`.

    Returns
    -------
    numpy.ndarray, shape (frames,), float64
        Levels in dB of full scale, as in `levels`. A band is the mean magnitude of its bins, so its power is a
        lower bound: the estimate is about 0.6 dB low for white noise, and up to 4 dB low for a tone. A spectrogram
        at the floor has -108.
    """
    bands, frames = log_mel.shape
    edges = _band_edges(bands)
    resolution = MEL.sampling_rate / MEL.n_fft
    bins = (edges[2:] - edges[:-2]) / 2 / resolution  # half of each band's width, because bands overlap by half
    window = np.hanning(MEL.win_length + 1)[:-1]
    # A band's filter has unit area in Hz; times the resolution, its value is a weighted mean over its bins.
    magnitude = np.exp(log_mel.astype(np.float64)) * resolution
    power = 2.0 / MEL.n_fft * (bins[:, None] * magnitude**2).sum(axis=0) / np.square(window).sum()
    width = WINDOW_SECONDS * MEL.sampling_rate / MEL.hop_length
    return _decibels(_around(power, np.arange(frames) + 0.5, width))


def warn_if_inaudible(level: float, what: str) -> None:
    """Warn if audio is too quiet to be heard.

    Parameters
    ----------
    level : float
        Level in dB of full scale.
    what : str
        Description of the audio, as the subject of a sentence.

    Warns
    -----
    InaudibleWarning
        If the level is below `INAUDIBLE_DBFS`. The message gives the level.
    """
    if level < INAUDIBLE_DBFS:
        warn(
            f"{what} cannot be heard: {level:.1f} dBFS in the loudest {WINDOW_SECONDS:g} s; audio below "
            f"{INAUDIBLE_DBFS:g} dBFS counts as inaudible.",
            InaudibleWarning,
        )


def clipped_milliseconds(samples: np.ndarray) -> float:
    """Return how much of a waveform at 16 kHz is at full scale or above, in ms.

    Examples
    --------
    >>> clipped_milliseconds(np.clip(1.2 * np.sin(np.arange(16_000)), -1, 1)) > 300
    True
    """
    at_full_scale = np.abs(np.asarray(samples, dtype=np.float64)) >= FULL_SCALE
    return float(1000 * np.count_nonzero(at_full_scale) / MEL.sampling_rate)


def warn_if_clipped(samples: np.ndarray, what: str, advice: str) -> None:
    """Warn if the loudest parts of audio are clipped.

    Parameters
    ----------
    samples : numpy.ndarray, shape (samples,)
        Waveform at 16 kHz, full scale at 1.
    what : str
        Description of the audio, as the subject of a sentence.
    advice : str
        A sentence that says what to do.

    Warns
    -----
    ClippingWarning
        If more than `CLIPPED_MS` is at full scale. The message gives the duration and the number of samples.
    """
    clipped = clipped_milliseconds(samples)
    if clipped > CLIPPED_MS:
        warn(
            f"{what} is clipped: {clipped:.1f} ms ({round(clipped * MEL.sampling_rate / 1000)} samples) are at "
            f"full scale, so its loudest parts are distorted. {advice}",
            ClippingWarning,
        )


def _around(power: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """Return the mean power within a width around each centre; at the ends the window moves into the clip."""
    length = min(round(width), power.size)
    starts = np.clip(np.round(centres - length / 2).astype(int), 0, power.size - length)
    total = np.concatenate([[0.0], np.cumsum(power)])
    return np.maximum(total[starts + length] - total[starts], 0.0) / length


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 10 ** (LOWEST_DBFS / 10)))


def _band_edges(bands: int) -> np.ndarray:
    import librosa

    return np.asarray(librosa.mel_frequencies(bands + 2, fmin=MEL.fmin, fmax=MEL.fmax, htk=False))
