"""The log-mel spectrogram, time in seconds and frequency in Hz."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.plots.style import extent, hatch_padding, label_axes


def spectrogram(
    log_mel: np.ndarray | xr.DataArray,
    grid: SpectrogramGrid,
    *,
    ax: Axes | None = None,
    cmap: str | Colormap = "magma",
    colorbar: bool | None = None,
) -> AxesImage:
    """Draw a log-mel spectrogram.

    Parameters
    ----------
    log_mel : numpy.ndarray or xarray.DataArray, shape (bands, frames)
        Natural-log mel spectrogram, lowest band first. Bands and frames divide the grid's width and mel axis
        into equal shares.
    grid : SpectrogramGrid
        What second and what Hz it covers. Columns beyond the audio are hatched, and leave the colours alone.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a figure of its own (``image.figure``).
    cmap : str or Colormap
        Colours of the values.
    colorbar : bool, optional
        None: only in a figure of its own.

    Returns
    -------
    matplotlib.image.AxesImage
        The image; ``.figure`` and ``.axes`` lead to the rest.

    Raises
    ------
    MapsError
        If the array is not of two dimensions, is empty, or is nowhere finite.
    """
    values = np.asarray(log_mel, dtype=float)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).any():
        raise MapsError(
            f"A spectrogram is an array (bands, frames) of finite values; this one has shape {values.shape}. "
            "Pick one prompt and one image, for example spectrogram[0, 0]."
        )
    own = ax is None
    if ax is None:
        ax = Figure(figsize=(9.0, 3.4), layout="constrained").add_subplot()
    padding = grid.padding(values.shape[1])
    low, high = value_range(values, padding)
    image = ax.imshow(
        values, origin="lower", extent=extent(grid), aspect="auto", interpolation="nearest", cmap=cmap,
        vmin=low, vmax=high,
    )  # fmt: skip
    label_axes(ax, grid, height=ax.get_window_extent().height / ax.figure.dpi, fontsize=9)
    hatch_padding(ax, grid, padding)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("frequency (Hz)")
    if own if colorbar is None else colorbar:
        ax.figure.colorbar(image, ax=ax, label="log-mel magnitude (natural log)", pad=0.01)
    return image


def value_range(values: np.ndarray, padding: np.ndarray) -> tuple[float, float]:
    """Lowest and highest finite value of the columns that are not padding (of all, where all are)."""
    heard = values[:, ~padding] if not padding.all() else values
    finite = heard[np.isfinite(heard)]
    if finite.size == 0:
        finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 1.0, high + 1.0)
