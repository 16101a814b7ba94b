"""The log-mel spectrogram, time in seconds and frequency in Hz."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.plots.style import FONTSIZE, extent, hatch_padding, height_of, label_axes, wrapped


def spectrogram(
    log_mel: np.ndarray | xr.DataArray,
    grid: SpectrogramGrid,
    *,
    ax: Axes | None = None,
    cmap: str | Colormap = "magma",
    colorbar: bool | None = None,
) -> Axes:
    """Draw a log-mel spectrogram.

    Parameters
    ----------
    log_mel : numpy.ndarray or xarray.DataArray, shape (bands, frames)
        Natural-log mel spectrogram, lowest band first. Bands and frames divide the grid's width and mel axis
        into equal shares.
    grid : SpectrogramGrid
        What second and what Hz it covers. Columns beyond the audio are hatched, and leave the colours alone.
        Values that are no numbers are blue, and the title says how many there are.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a figure of its own (``ax.figure``).
    cmap : str or Colormap
        Colours of the values.
    colorbar : bool, optional
        None: only in a figure of its own.

    Returns
    -------
    matplotlib.axes.Axes
        Its one image is the spectrogram.

    Raises
    ------
    MapsError
        If the array is not of two dimensions, is empty, or is nowhere finite.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> maps = example_maps()
    >>> ax = spectrogram(maps.spectrogram[0, 0], maps.grid)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('time (s)', 'frequency (Hz)')
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
    undefined = np.count_nonzero(~np.isfinite(values))
    image = ax.imshow(
        np.ma.masked_invalid(values), origin="lower", extent=extent(grid), aspect="auto", interpolation="nearest",
        cmap=cmap, vmin=low, vmax=high,
    )  # fmt: skip
    if undefined:
        image.set_cmap(image.get_cmap().with_extremes(bad="#4aa3df"))
        share = undefined / values.size
        ax.set_title(f"blue: {share:.2g} of all values are not numbers", fontsize=FONTSIZE, loc="right", pad=3)
    label_axes(ax, grid, height=height_of(ax), fontsize=9)
    hatch_padding(ax, grid, padding)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("frequency (Hz)")
    if own if colorbar is None else colorbar:
        height = height_of(ax)
        bar = ax.figure.colorbar(image, ax=ax, pad=0.015, aspect=max(6.0, height / 0.13))
        bar.set_label(wrapped("log-mel magnitude (natural log)", height, 10.0))
    return ax


def value_range(values: np.ndarray, padding: np.ndarray) -> tuple[float, float]:
    """Lowest and highest finite value of the columns that are not padding (of all, where all are)."""
    heard = values[:, ~padding] if not padding.all() else values
    finite = heard[np.isfinite(heard)]
    if finite.size == 0:
        finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 1.0, high + 1.0)
