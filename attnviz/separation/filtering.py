"""Apply masks over time and frequency to the short-time Fourier transform of a clip; its phase is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import librosa
import numpy as np
import torch

from attnviz.audio.grid import CellGrid

_WINDOW_SECONDS = 0.064
_OVERLAP = 4  # windows that cover a sample
_PADDED = 2  # the transform is this many times the window, as that of the mel spectrogram


def filtered(audio: np.ndarray, rate: int, masks: np.ndarray, cells: CellGrid) -> list[np.ndarray]:
    """Filter a clip by each of several masks.

    Parameters
    ----------
    audio : numpy.ndarray, shape (samples,)
        The clip.
    rate : int
        Its sampling rate in Hz.
    masks : numpy.ndarray, shape (masks, rows, columns)
        Gains of the cells, lowest frequency first. They are interpolated linearly between the centres of cells,
        over time and over mel.
    cells : CellGrid
        Grid of the masks. Without a frequency axis, there is one row, which holds for all frequencies.

    Returns
    -------
    list of numpy.ndarray, shape (samples,), float32
        The filtered clips. Filtering is linear in the mask: masks that sum to 1 in every cell give clips that sum
        to `audio`.
    """
    length = max(_OVERLAP, 2 ** round(np.log2(_WINDOW_SECONDS * rate)))  # toy models have rates of a few hertz
    hop, size = length // _OVERLAP, _PADDED * length
    shape: dict[str, Any] = {
        "n_fft": size,
        "hop_length": hop,
        "win_length": length,
        "window": torch.hann_window(length),
    }
    wave = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    spectrum = torch.stft(wave, **shape, pad_mode="constant", return_complex=True)
    bins, frames = spectrum.shape
    up = _between(_row_positions(np.arange(bins) * rate / size, cells), masks.shape[1])
    across = _between(np.arange(frames) * hop / rate / cells.column_seconds - 0.5, masks.shape[2])
    gains = [torch.from_numpy((up @ mask @ across.T).astype(np.float32)) for mask in masks]
    return [torch.istft(spectrum * gain, **shape, length=len(audio)).numpy() for gain in gains]


def _row_positions(hertz: np.ndarray, cells: CellGrid) -> np.ndarray:
    """Return the rows, as fractions between centres, of frequencies."""
    grid, rows = cells.grid, cells.shape[0]
    if not grid.has_freq:
        return np.zeros(len(hertz))
    low, high = (float(librosa.hz_to_mel(hz, htk=False)) for hz in (grid.fmin, grid.fmax))
    share = (librosa.hz_to_mel(hertz, htk=False) - low) / (high - low)
    return np.asarray((share - cells.bottom) / (1 - cells.bottom) * rows - 0.5)


def _between(positions: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    """Return weights, shape (positions, size), of linear interpolation, constant beyond the outer centres."""
    at = np.clip(positions, 0, size - 1)
    lower = np.minimum(np.floor(at).astype(int), max(size - 2, 0))
    weights = np.zeros((len(at), size))
    rows = np.arange(len(at))
    weights[rows, lower] = 1 - (at - lower)
    if size > 1:
        weights[rows, lower + 1] = at - lower
    return weights
