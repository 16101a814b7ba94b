"""Plot the log-mel spectrogram with time in seconds and frequency in Hz."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from attnviz.arguments import public
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.plots.style import FONTSIZE, extent, hatch_padding, height_of, label_axes, named_colours, wrapped

SHOWN_RANGE = (math.log(1e-3), math.log(10.0))
"""Log-mel values at the limits of the colour scale: -60 and 20 dB. White noise at -20 dBFS is at -12 dB. Noise at
-50 dBFS, the limit of audibility, is at -42 dB; quieter sound is darker in every figure."""

DECIBEL = math.log(10.0) / 20.0
"""One decibel in natural logarithmic units."""


@public
def spectrogram(
    log_mel: np.ndarray | xr.DataArray,
    grid: SpectrogramGrid,
    *,
    ax: Axes | None = None,
    cmap: str | Colormap = "magma",
    colorbar: bool | None = None,
) -> Axes:
    """Draw a log-mel spectrogram on the same scale (`SHOWN_RANGE`) for every clip, so that silence is dark.

    Parameters
    ----------
    log_mel : numpy.ndarray or xarray.DataArray, shape (bands, frames)
        Natural-log mel spectrogram, lowest band first. Bands and frames divide the width and mel axis of the grid
        into equal parts. Values that are not finite are blue, and their fraction is given in the title.
    grid : SpectrogramGrid
        Grid that defines times and frequencies. Columns beyond the audio are hatched.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.
    cmap : str or Colormap
        Colour map.
    colorbar : bool, optional
        Whether to draw the colour bar. By default, only in a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Its only image is the spectrogram.

    Raises
    ------
    MapsError
        If the array is not two-dimensional, is empty, or has no finite value.

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
            "A spectrogram must be an array (bands, frames) of finite values; this one has the shape "
            f"{values.shape}. Select one prompt and one image, for example spectrogram[0, 0]."
        )
    colours = named_colours(cmap) if isinstance(cmap, str) else cmap
    own = ax is None
    if ax is None:
        ax = Figure(figsize=(9.0, 3.4), layout="constrained").add_subplot()
    padding = grid.padding(values.shape[1])
    low, high = SHOWN_RANGE
    undefined = np.count_nonzero(~np.isfinite(values))
    image = ax.imshow(
        np.ma.masked_invalid(values), origin="lower", extent=extent(grid), aspect="auto", interpolation="nearest",
        cmap=colours, vmin=low, vmax=high,
    )  # fmt: skip
    if undefined:
        image.set_cmap(image.get_cmap().with_extremes(bad="#4aa3df"))
        share = undefined / values.size
        ax.set_title(f"blue: {share:.2g} of all values are not finite", fontsize=FONTSIZE, loc="right", pad=3)
    label_axes(ax, grid, height=height_of(ax), fontsize=9)
    hatch_padding(ax, grid, padding)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("frequency (Hz)")
    if own if colorbar is None else colorbar:
        height = height_of(ax)
        bar = ax.figure.colorbar(image, ax=ax, pad=0.015, aspect=max(6.0, height / 0.13))
        label_decibels(bar)
        bar.set_label(wrapped("log-mel magnitude (dB)", height, 10.0))
    return ax


def label_decibels(bar: Colorbar) -> None:
    """Label the colour bar of a spectrogram in dB, every 20 dB from -60 to 20."""
    decibels = range(-60, 21, 20)
    bar.set_ticks([each * DECIBEL for each in decibels], labels=[str(each) for each in decibels])
