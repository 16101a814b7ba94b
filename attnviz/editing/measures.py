"""Measure how well an edit worked, from spectrograms, waveforms and a listener's events; no model is run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr

from attnviz.audio import MEL, SpectrogramGrid
from attnviz.errors import AudioError

_SEAM_SECONDS = 0.002
_AROUND_SECONDS = 0.25


def outside_events(
    events: Sequence[pd.DataFrame], sounds: Collection[str], grid: SpectrogramGrid, frames: int
) -> np.ndarray:
    """Mark the frames in which none of some sounds was heard.

    Parameters
    ----------
    events : sequence of pandas.DataFrame
        Event tables (`attnviz.events`), for example of the source and of its edit.
    sounds : collection of str
        Labels of the edited sounds.
    grid : SpectrogramGrid
        Times of the frames; padding is not marked.
    frames : int
        Number of frames.

    Returns
    -------
    numpy.ndarray, shape (frames,), bool
    """
    times = grid.time(frames)
    outside = ~grid.padding(frames)
    for table in events:
        for onset, offset in table.loc[table["label"].isin(list(sounds)), ["onset", "offset"]].to_numpy():
            outside &= (times < onset) | (times >= offset)
    return outside


def outside_map(heat: xr.DataArray, threshold: float = 0.3) -> np.ndarray:
    """Mark where a word's map is at most a fraction of its maximum.

    Parameters
    ----------
    heat : xarray.DataArray, dims (freq, time)
        ``AttentionMaps.heatmap(word, grid="image")``.
    threshold : float
        Fraction of the maximum, as in `LocalBlend`.

    Returns
    -------
    numpy.ndarray, shape (freq, time), bool
    """
    values = heat.to_numpy()
    return values <= threshold * values.max()


def mel_distance(before: np.ndarray, after: np.ndarray, where: np.ndarray | None = None) -> float:
    """Compute the mean absolute difference of two log-mel spectrograms.

    Parameters
    ----------
    before, after : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrograms.
    where : numpy.ndarray, bool, optional
        Which frames (frames,), or which cells (bands, frames), are included.

    Returns
    -------
    float
        Mean absolute difference in nats (1 nat is 8.7 dB); NaN if nothing is included.

    Raises
    ------
    AudioError
        If the shapes differ.
    """
    if before.shape != after.shape:
        raise AudioError(f"The spectrograms have the shapes {before.shape} and {after.shape}; they must be equal.")
    difference = np.abs(before.astype(np.float64) - after)
    counted = difference if where is None else difference[np.broadcast_to(where, difference.shape)]
    return float(counted.mean()) if counted.size else float("nan")


def loudness(log_mel: np.ndarray, weights: np.ndarray) -> float:
    """Compute the loudness of a part of a spectrogram.

    Parameters
    ----------
    log_mel : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrogram, of magnitudes.
    weights : numpy.ndarray, shape (bands, frames)
        Non-negative weight of each cell: a word's map before reweighting, or a mask.

    Returns
    -------
    float
        Weighted mean power, in dB; NaN if all weights are 0.
    """
    total = float(weights.sum())
    if total <= 0:
        return float("nan")
    return float(10 * np.log10((weights * np.exp(2.0 * log_mel.astype(np.float64))).sum() / total))


def heard_loudness(log_mel: np.ndarray, probability: np.ndarray) -> float:
    """Compute the loudness of one sound, as located by a listener.

    A spectrogram does not separate the power of its sounds. Each frame's power is therefore weighted with the
    listener's probability of the sound, so that other sounds that grow at its place are excluded.

    Parameters
    ----------
    log_mel : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrogram, of magnitudes.
    probability : numpy.ndarray, shape (listener frames,)
        Probability of the sound, over the same time.

    Returns
    -------
    float
        Mean power of a cell, in dB; minus infinity where every probability is 0.
    """
    frames = log_mel.shape[1]
    nearest = (np.arange(frames) + 0.5) * len(probability) / frames
    power = np.exp(2.0 * log_mel.astype(np.float64)).mean(axis=0)
    heard = float((power * probability[nearest.astype(int)]).mean())
    return float(10 * np.log10(heard)) if heard > 0 else -np.inf


def agreement(before: xr.DataArray, after: xr.DataArray, sounds: Collection[str]) -> float:
    """Compare a listener's probabilities of some sounds in two clips.

    Parameters
    ----------
    before, after : xarray.DataArray, dims (sound, time)
        ``Hearing.probabilities`` of two clips of one length.
    sounds : collection of str
        Sounds to compare: those that were not edited.

    Returns
    -------
    float
        1 less the mean absolute difference of their probabilities, in [0, 1]; NaN for no sounds.
    """
    chosen = [sound for sound in before["sound"].to_numpy().tolist() if sound in sounds]
    if not chosen:
        return float("nan")
    pair = (hearing.sel(sound=chosen).to_numpy().astype(np.float64) for hearing in (before, after))
    return float(1 - np.abs(np.subtract(*pair)).mean())


def monotone(weights: Sequence[float], values: Sequence[float]) -> float:
    """Return Spearman's rank correlation of a measure with a word's weight; NaN where the measure never changes.

    Examples
    --------
    >>> round(monotone([-2, 0, 1, 4], [-30.0, -21.5, -20.0, -12.0]), 6)
    1.0
    """
    if len(set(values)) < 2:
        return float("nan")
    return float(spearmanr(weights, values).statistic)


def seam_click(audio: np.ndarray, seconds: float) -> float:
    """Measure whether a clip clicks at a seam.

    Parameters
    ----------
    audio : numpy.ndarray, shape (samples,)
        The clip at 16 kHz.
    seconds : float
        Time of the seam in seconds.

    Returns
    -------
    float
        Energy of the second difference within 2 ms of the seam over the largest such energy of 4 ms within a
        quarter of a second on either side, in dB: a click, which jumps, stands out above 0.

    Raises
    ------
    AudioError
        If the seam is not inside the clip.
    """
    at, half, around = (round(each * MEL.sampling_rate) for each in (seconds, _SEAM_SECONDS, _AROUND_SECONDS))
    if not half < at < len(audio) - half:
        raise AudioError(
            f"The seam at {seconds:g} s is not inside the clip of {len(audio) / MEL.sampling_rate:g} s."
        )
    energy = np.convolve(np.diff(audio.astype(np.float64), 2) ** 2, np.ones(2 * half), mode="same")
    first, last = max(0, at - around), min(len(energy), at + around)
    beside = np.r_[energy[first : max(first, at - 2 * half)], energy[min(last, at + 2 * half) : last]]
    floor = np.finfo(np.float64).tiny
    return float(10 * np.log10(max(energy[at - 1], floor) / max(beside.max(initial=0.0), floor)))
