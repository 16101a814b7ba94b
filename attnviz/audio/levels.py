"""How loud audio is, in dB of full scale, and from which level on it counts as audible."""

from __future__ import annotations

import numpy as np

from attnviz.audio.settings import MEL
from attnviz.errors import AudioError, InaudibleWarning, warn

INAUDIBLE_DBFS = -50.0
"""Audio whose loudest 0.4 s stay below this level counts as inaudible, in dB of full scale (RMS)."""

WINDOW_SECONDS = 0.4
"""Length of audio that a level is of: the momentary loudness of ITU-R BS.1771, without its weighting."""

LOWEST_DBFS = -120.0
"""Level that is given for digital silence, and anything below it."""


def levels(samples: np.ndarray, hop_length: int = MEL.hop_length) -> np.ndarray:
    """Compute the level around each frame of a waveform.

    Parameters
    ----------
    samples : numpy.ndarray, shape (samples,)
        Waveform at 16 kHz, full scale at 1.
    hop_length : int
        Samples of a frame.

    Returns
    -------
    numpy.ndarray, shape (frames,), float64
        Root mean square of the 0.4 s around each frame's centre, in dB of full scale; at the ends, of the
        first or last 0.4 s. A sine of amplitude 1 has -3.01; nothing is below -120.

    Raises
    ------
    AudioError
        If there are no samples.
    """
    power = np.square(np.asarray(samples, dtype=np.float64))
    if power.ndim != 1 or not power.size:
        raise AudioError(f"A level is of a waveform (samples,); this one has the shape {power.shape}.")
    centres = hop_length * (np.arange(-(-power.size // hop_length)) + 0.5)
    return _decibels(_around(power, centres, WINDOW_SECONDS * MEL.sample_rate))


def loudest_level(samples: np.ndarray) -> float:
    """Return the level of the loudest 0.4 s of a waveform, in dB of full scale; of a shorter one, of all of it.

    Examples
    --------
    >>> tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    >>> round(loudest_level(tone), 1), round(loudest_level(np.concatenate([np.zeros(80_000), tone])), 1)
    (-23.0, -23.0)
    """
    return float(levels(samples).max())


def mel_levels(log_mel: np.ndarray) -> np.ndarray:
    """Estimate the level around each frame of a log-mel spectrogram.

    Parameters
    ----------
    log_mel : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrogram of magnitudes, as `attnviz.audio.log_mel` makes it.

    Returns
    -------
    numpy.ndarray, shape (frames,), float64
        In dB of full scale, as `levels`. A band holds the mean magnitude of its bins, so their power is a lower
        bound: the estimate is about 0.6 dB low for white noise, and up to 4 dB for a tone. A spectrogram at the
        floor has -108.
    """
    bands, frames = log_mel.shape
    edges = _band_edges(bands)
    resolution = MEL.sample_rate / MEL.n_fft
    bins = (edges[2:] - edges[:-2]) / 2 / resolution  # of each band: half its width, for bands overlap by half
    window = np.hanning(MEL.win_length + 1)[:-1]
    # A band's filter has an area of 1 in Hz, so its value over the resolution is its bins' sum, weighed to a mean.
    magnitude = np.exp(log_mel.astype(np.float64)) * resolution
    power = 2.0 / MEL.n_fft * (bins[:, None] * magnitude**2).sum(axis=0) / np.square(window).sum()
    width = WINDOW_SECONDS * MEL.sample_rate / MEL.hop_length
    return _decibels(_around(power, np.arange(frames) + 0.5, width))


def warn_if_inaudible(level: float, what: str) -> None:
    """Warn of audio that cannot be heard.

    Parameters
    ----------
    level : float
        In dB of full scale.
    what : str
        What has that level, as the subject of a sentence.

    Warns
    -----
    InaudibleWarning
        If the level is below `INAUDIBLE_DBFS`; with the level.
    """
    if level < INAUDIBLE_DBFS:
        warn(
            f"{what} cannot be heard: {level:.1f} dBFS in the loudest {WINDOW_SECONDS:g} s, and below "
            f"{INAUDIBLE_DBFS:g} dBFS counts as inaudible.",
            InaudibleWarning,
        )


def _around(power: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """Mean power of a width around each centre, moved into the clip at its ends."""
    length = min(round(width), power.size)
    starts = np.clip(np.round(centres - length / 2).astype(int), 0, power.size - length)
    total = np.concatenate([[0.0], np.cumsum(power)])
    return np.maximum(total[starts + length] - total[starts], 0.0) / length


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 10 ** (LOWEST_DBFS / 10)))


def _band_edges(bands: int) -> np.ndarray:
    import librosa

    return np.asarray(librosa.mel_frequencies(bands + 2, fmin=MEL.fmin, fmax=MEL.fmax, htk=False))
