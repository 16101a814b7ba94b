"""The readout ``"sharp"``: maps shared out among the phrases of the prompt and refined by the spectrogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.arguments import public
from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.fitted import FittedReadout
from attnviz.maps.sharing import refined, relative_logarithms, shares

EXPONENT = 4.0
"""Power of the maps in a share; set by judgement, as are the floor and the power of the magnitudes."""
FLOOR = 0.2
"""Quantile of the magnitudes of a band that counts as its floor."""
POWER = 0.6
"""Power of the magnitudes."""
FRAMES = 4
"""Frames of the spectrogram in a column."""
QUANTITY = "share of the phrase times the magnitude above the floor, relative to its maximum"


@public
@dataclass(frozen=True)
class SharpReadout:
    """Maps on the grid of the spectrogram: the share of the phrase times the magnitude above the band's floor.

    Passed as ``readout=`` to the methods that read maps. ``"sharp"`` is this readout of the fitted maps for
    attention of the bundled model, and of the mean of all layers for other models and methods.

    Parameters
    ----------
    base : str or FittedReadout
        Readout of the maps that are shared out and refined.

    Raises
    ------
    MapsError
        If `base` is neither a name nor a fitted readout, or is ``"sharp"``.

    Notes
    -----
    Attention has columns of 160 to 640 ms, so it cannot say when exactly a sound begins. The spectrogram can, but
    not whose sound it is. Each cell of the spectrogram is shared out among the phrases of the prompt by their maps
    (`attnviz.maps.sharing`), and multiplied by its magnitude above the floor of its band. What the spectrogram
    alone brings is the same readout of a constant map; `attnviz.align` scores it as the control ``"energy"``.

    The map has all bands of the spectrogram, in columns of 40 ms, or with ``grid="image"`` of 10 ms. It needs maps
    with a spectrogram and a frequency axis.
    """

    base: str | FittedReadout = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.base, str | FittedReadout) or self.base == SHARP:
            raise MapsError(f"base is {self.base!r}; the name of another readout or a FittedReadout is needed.")

    @property
    def name(self) -> str:
        """Name used in results: "sharp" and the name of `base`."""
        return f"{SHARP} {self.base if isinstance(self.base, str) else self.base.name}"


SHARP = "sharp"


def own_cells(grid: SpectrogramGrid) -> CellGrid:
    """Return the grid of sharp maps: all bands, and columns of four frames (40 ms).

    Frames are 10 ms apart, but their windows have 64 ms.
    """
    return grid.cells(grid.bands, -(-grid.width // FRAMES), (1.0, float(FRAMES)))


def sharpened(
    heat: np.ndarray, others: Sequence[np.ndarray], log_mel: np.ndarray, cells: CellGrid, target: CellGrid
) -> np.ndarray:
    """Return the sharp map of a phrase.

    Parameters
    ----------
    heat : numpy.ndarray, shape (bands, frames)
        Map of the phrase.
    others : sequence of numpy.ndarray, shape (bands, frames)
        Maps of the other phrases of the prompt.
    log_mel : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrogram, lowest band first.
    cells : CellGrid
        Grid of all of these.
    target : CellGrid
        Grid of the result: that of `own_cells`, or `cells`.

    Returns
    -------
    numpy.ndarray, shape (bands, columns), float64
        In [0, 1]; 0 in padding.
    """
    logarithms = refined(relative_logarithms([heat, *others]), log_mel, cells)
    value = shares(logarithms, EXPONENT)[0] * above_floor(log_mel, cells)
    if target != cells:
        first = np.arange(0, value.shape[1], FRAMES)
        value = np.add.reduceat(value, first, axis=1) / np.diff(np.append(first, value.shape[1]))
    highest = value.max()
    return value / highest if highest > 0 else value


def above_floor(log_mel: np.ndarray, cells: CellGrid) -> np.ndarray:
    """Return the magnitude of each cell above the floor of its band, to the power `POWER`; 0 in padding."""
    heard = ~cells.padding
    level = np.asarray(log_mel, dtype=np.float64)
    if not heard.any():
        return np.zeros_like(level)
    floor = np.quantile(level[:, heard], FLOOR, axis=1, keepdims=True)
    above = np.maximum(np.exp(POWER * level) - np.exp(POWER * floor), 0.0)
    return np.asarray(np.where(heard, above, 0.0))
