"""Compute the share of each source in the energy of every spectrogram cell."""

from __future__ import annotations

import numpy as np
import torch

from attnviz.audio import MEL
from attnviz.audio.mel import mel_filters

_ENERGY_FLOOR = 1e-9  # corresponds approximately to the clamp of log-mel at a magnitude of 1e-5


def energy_shares(stems: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the share of each stem in the summed energy of all stems.

    Parameters
    ----------
    stems : numpy.ndarray
        ``(sources, samples)`` float32 at 16 kHz.
    rows, columns : int
        Number of cells that divide the 256 bands and the frames. Energy is divided proportionally if a cell
        contains part of a band or frame.

    Returns
    -------
    numpy.ndarray
        ``(sources, rows, columns)`` float32 in [0, 1], lowest frequency first. Shares sum to 1 over the sources
        where the energy is above the floor, and are 0 elsewhere.
    """
    energy = _mel_energy(stems)
    energy = _overlaps(rows, energy.shape[1]) @ energy @ _overlaps(columns, energy.shape[2]).T
    total = energy.sum(axis=0)
    cell = MEL.n_mels / rows * energy.shape[2] / columns  # scales the floor to the size of a cell
    seen = total > _ENERGY_FLOOR * cell
    return np.where(seen, energy / np.where(seen, total, 1.0), 0.0).astype(np.float32)


def _mel_energy(stems: np.ndarray) -> np.ndarray:
    """Return ``(sources, bands, frames)`` float64 power, the frames and bands of `attnviz.audio.log_mel`."""
    with torch.no_grad():
        audio = torch.from_numpy(np.ascontiguousarray(stems))[:, None]
        audio = torch.nn.functional.pad(audio, (MEL.pad, MEL.pad), mode="reflect")[:, 0]
        spectrum = torch.stft(
            audio,
            MEL.n_fft,
            hop_length=MEL.hop_length,
            win_length=MEL.win_length,
            window=torch.hann_window(MEL.win_length),
            center=False,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        return torch.matmul(torch.from_numpy(mel_filters(MEL)), power).numpy().astype(np.float64)


def _overlaps(cells: int, parts: int) -> np.ndarray:
    """Return ``(cells, parts)``: the fraction of each part in each cell, where both divide one axis evenly."""
    edges = np.linspace(0, parts, cells + 1)
    part = np.arange(parts)
    upper = np.minimum(edges[1:, None], part[None] + 1)
    lower = np.maximum(edges[:-1, None], part[None])
    return np.clip(upper - lower, 0.0, None)
