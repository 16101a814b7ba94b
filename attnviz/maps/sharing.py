"""Share the cells of a clip out among phrases, and refine the shares by the spectrogram.

The share of a phrase is its map, relative to its maximum, to a power, over the sum of all phrases. Refinement
averages the logarithms of the maps over neighbouring cells, weighted by the magnitude of the spectrogram, so that
the cells of one sound are decided together, and those of silence decide nothing. It is the average of a joint
bilateral filter whose range kernel is the magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from attnviz.audio.grid import CellGrid

_SILENT = 1e-6  # weight of silence, relative to the loudest cell: only where all is silent, it decides
_LOWEST = 1e-6  # of the maximum of a map: below, a map says that a sound is absent, and not how much


@dataclass(frozen=True)
class Neighbourhood:
    """Cells that are averaged together.

    Attributes
    ----------
    seconds : float
        Half of the width.
    rows : float
        Half of the height, as a fraction of the mel axis; 1 covers all rows.
    """

    seconds: float
    rows: float


NEIGHBOURHOODS = (Neighbourhood(0.24, 0.08), Neighbourhood(0.2, 1.0))
"""Near cells, and all frequencies at nearly one time: a sound is mostly decided as a whole."""


def relative_logarithms(heats: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithms of maps relative to their maxima, ``(maps, rows, columns)`` float64.

    Negative values count as 0. A map that is nowhere above 0 is -inf everywhere.
    """
    positive = np.maximum(np.stack([np.asarray(heat, dtype=np.float64) for heat in heats]), 0.0)
    highest = positive.max(axis=(-2, -1), keepdims=True)
    relative = np.divide(positive, highest, out=np.zeros_like(positive), where=highest > 0)
    return np.where(highest > 0, np.log(np.maximum(relative, _LOWEST)), -np.inf)


def shares(logarithms: np.ndarray, exponent: float) -> np.ndarray:
    """Share every cell out among maps.

    Parameters
    ----------
    logarithms : numpy.ndarray, shape (maps, rows, columns)
        Logarithms of the maps; -inf everywhere for a map that is nowhere above 0.
    exponent : float
        Power of the maps; higher powers divide more sharply.

    Returns
    -------
    numpy.ndarray, shape (maps, rows, columns), float64
        Shares in [0, 1] that sum to 1 in every cell, or to 0 if no map is above 0.
    """
    known = np.isfinite(logarithms)
    largest = np.where(known, logarithms, -np.inf).max(axis=0)
    gap = np.where(known, logarithms - np.where(np.isfinite(largest), largest, 0.0), -np.inf)
    power = np.exp(exponent * gap)
    total = power.sum(axis=0)
    return np.divide(power, total, out=np.zeros_like(power), where=total > 0)


def refined(
    logarithms: np.ndarray,
    log_mel: np.ndarray,
    cells: CellGrid,
    neighbourhoods: Sequence[Neighbourhood] = NEIGHBOURHOODS,
) -> np.ndarray:
    """Average the logarithms of maps over neighbouring cells, weighted by the magnitude of the spectrogram.

    Parameters
    ----------
    logarithms : numpy.ndarray, shape (maps, bands, frames)
        From `relative_logarithms`.
    log_mel : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrogram, lowest band first.
    cells : CellGrid
        Grid of both.
    neighbourhoods : sequence of Neighbourhood

    Returns
    -------
    numpy.ndarray, shape (maps, bands, frames), float64
        Mean of the averages over each of the neighbourhoods. Columns of padding do not contribute.
    """
    magnitude = np.exp(np.asarray(log_mel, dtype=np.float64)) * ~cells.padding
    weights = magnitude + max(_SILENT * float(magnitude.max()), np.finfo(float).tiny)
    sizes = [(_odd(one.rows * cells.shape[0]), _odd(one.seconds / cells.column_seconds)) for one in neighbourhoods]
    absent = ~np.isfinite(logarithms).all(axis=(-2, -1))
    found = np.zeros_like(logarithms)
    for number, logarithm in enumerate(logarithms):
        if absent[number]:
            found[number] = -np.inf
            continue
        for size in sizes:
            part, total = (
                uniform_filter(values, size, mode="constant") for values in (weights * logarithm, weights)
            )
            found[number] += part / total / len(sizes)
    return found


def _odd(half: float) -> int:
    """Return an odd number of cells with about this many on each side of the middle."""
    return 2 * max(0, round(half)) + 1
