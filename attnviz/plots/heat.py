"""Plot a heat map, with or without the spectrogram."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from attnviz.arguments import public
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.layer import cells_of
from attnviz.plots.spectrogram import SHOWN_RANGE
from attnviz.plots.style import (
    ATTENTION,
    FONTSIZE,
    extent,
    hatch_padding,
    height_of,
    label_axes,
    named_colours,
    own_axes,
    readable,
    text_style,
    wrapped,
)

SIGNED = "RdBu_r"
"""Colour map of signed values: red above 0, blue below."""

_BAR_WIDTH = 0.13  # inches
_LOUDEST = "#868686"
_BENEATH = LinearSegmentedColormap.from_list("attnviz_beneath", ["#ffffff", _LOUDEST])


@public
def heatmap(
    heat: xr.DataArray,
    grid: SpectrogramGrid,
    *,
    spectrogram: np.ndarray | xr.DataArray | None = None,
    highest: float | None = None,
    cmap: str = ATTENTION,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the heat map of one phrase, over the grey spectrogram if it is given.

    Parameters
    ----------
    heat : xarray.DataArray, dims (freq, time)
        Result of `AttentionMaps.heatmap`.
    grid : SpectrogramGrid
        Grid of the maps.
    spectrogram : array (bands, frames), optional
        Natural-log mel spectrogram, lowest band first.
    highest : float, optional
        Value at the end of the colour scale, which starts at 0. By default, the maximum outside padding. Use the
        same value to share a scale between figures; if values exceed it, the colour bar ends in an arrow. If the
        map has negative values, as for a negative weight of a word, `highest` is a magnitude.
    cmap : str
        Matplotlib colour map with a light lower end. Maps with negative values use `SIGNED` instead.
    colorbar : bool
        Whether to draw the colour bar.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The last of its ``images`` is the heat map, preceded by the spectrogram, if any.

    Raises
    ------
    MapsError
        If the map has other dims or is not finite, `highest` is not positive, or the colour map is unknown.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> maps = example_maps()
    >>> ax = heatmap(maps.heatmap("rain"), maps.grid, spectrogram=maps.spectrogram[0, 0])
    >>> ax.get_title(loc="left"), ax.images[-1].colorbar.ax.get_ylabel().split("(")[0].split()
    ('rain', ['attention', 'probability'])
    """
    known = heat.dims in (("freq", "time"), ("time",))
    if not known or not heat.size or not np.isfinite(heat.to_numpy()).all():
        raise MapsError(
            f"A heat map must have the dims ('freq', 'time') or ('time',) and finite values; this one has "
            f"{heat.dims}, shape {heat.shape}, and {np.count_nonzero(~np.isfinite(heat.to_numpy()))} values that "
            "are not finite."
        )
    if highest is not None and not (np.isfinite(highest) and highest > 0):
        raise MapsError(f"highest={highest} is the value at the end of the colour scale; it must be above 0.")
    own = highest_of(heat)
    top = highest or own or 1.0
    ax = own_axes(6.4, 2.4) if ax is None else ax
    beneath = None if spectrogram is None else checked(spectrogram)
    signed = is_signed(heat)
    image = draw_heat(ax, heat, grid, beneath, see_through(cmap, signed=signed), normed(top, signed=signed))
    label_axes(ax, grid, height=height_of(ax), fontsize=FONTSIZE)
    ax.set_xlabel("time (s)", fontsize=FONTSIZE + 1)
    if grid.has_freq:
        ax.set_ylabel("frequency (Hz)", fontsize=FONTSIZE + 1)
    name = readable(phrase_of(heat), longest=60)
    ax.set_title(name, fontsize=FONTSIZE + 1, loc="left", pad=3, **text_style())
    if colorbar:
        label = str(heat.attrs.get("long_name", "attention"))
        scale_bar(ax, image, label, over=own > top, on_sound=beneath is not None)
    return ax


def draw_heat(
    ax: Axes,
    heat: xr.DataArray,
    grid: SpectrogramGrid,
    beneath: np.ndarray | None,
    colours: ListedColormap,
    norm: Normalize,
) -> AxesImage:
    """Draw a map over a spectrogram, with hatched padding and axes labelled by `style.label_axes`."""
    where: dict[str, Any] = {
        "origin": "lower",
        "extent": extent(grid),
        "aspect": "auto",
        "interpolation": "nearest",
    }
    ax.set_facecolor("white")
    if beneath is not None:
        low, high = SHOWN_RANGE
        ax.imshow(beneath, cmap=_BENEATH, vmin=low, vmax=high, **where)
    cells = cells_of(heat, grid)
    image = ax.imshow(np.atleast_2d(heat.to_numpy()), cmap=colours, norm=norm, **where | {"extent": extent(cells)})
    hatch_padding(ax, cells, heat["padding"].to_numpy())
    return image


def scale_bar(
    axes: Any, image: ScalarMappable, label: str, *, over: bool = False, on_sound: bool = False, **place: Any
) -> Axes:
    """Draw the colour bar beside the axes, with an arrow at its end if values exceed it.

    With `on_sound`, the map is drawn on the grey spectrogram, and the bar shows both; see `ground_halves`.
    """
    first = np.atleast_1d(axes).flat[0]
    height = height_of(first) * np.shape(np.atleast_2d(axes))[0]
    place = {"pad": 0.015, "aspect": max(6.0, height / _BAR_WIDTH), "extend": "max" if over else "neither"} | place
    bar = first.figure.colorbar(image, ax=axes, **place)
    bar.ax.set_facecolor("white")
    if on_sound:
        label = f"{label}{ground_halves(bar.ax)}"
    bar.ax.tick_params(labelsize=FONTSIZE)
    bar.set_label(wrapped(label, height * place.get("shrink", 1.0)), fontsize=FONTSIZE + 1)
    return bar.ax


def ground_halves(ax: Axes) -> str:
    """Show the colours of a vertical colour bar on silence and on sound, and return a note for its label.

    Colours of a map mix with the grey of the spectrogram below. The left half of the bar shows them on white
    (silence), and the right half on the grey of the loudest sound.
    """
    loud = Rectangle((0.5, 0), 0.5, 1, transform=ax.transAxes, facecolor=_LOUDEST, linewidth=0, zorder=-1)
    ax.add_patch(loud)
    return " (left: silence, right: loud)"


def highest_of(heat: xr.DataArray) -> float:
    """Return the maximum magnitude outside padding; 0 if all columns are padding."""
    heard = np.atleast_2d(heat.to_numpy())[:, ~heat["padding"].to_numpy()]
    return float(np.abs(heard).max()) if heard.size else 0.0


def is_signed(heat: xr.DataArray) -> bool:
    """Return whether a map has negative values outside padding, as for a negative weight of a word."""
    return bool((np.atleast_2d(heat.to_numpy())[:, ~heat["padding"].to_numpy()] < 0).any())


def normed(highest: float, *, signed: bool) -> Normalize:
    """Return the scale from 0, or from the negative for signed values, to `highest`."""
    return Normalize(-highest if signed else 0.0, highest)


def checked(spectrogram: np.ndarray | xr.DataArray) -> np.ndarray:
    """Return a spectrogram as an array.

    Raises
    ------
    MapsError
        If it is not two-dimensional, is empty, or has no finite value.
    """
    values = np.asarray(spectrogram, dtype=float)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).any():
        raise MapsError(
            f"spectrogram must be an array (bands, frames) of finite values; it has the shape {values.shape}."
        )
    return values


def see_through(cmap: str, *, signed: bool = False) -> ListedColormap:
    """Return a colour map with increasing opacity, so that the spectrogram is visible where attention is low.

    For signed values, this is `SIGNED`, with zero opacity in the middle, at 0.

    Raises
    ------
    MapsError
        If matplotlib has no colour map of that name.
    """
    # Omit the black end of such maps, which would hide the spectrogram.
    colours = named_colours(cmap)(np.linspace(0, 0.86, 256))
    rising = np.linspace(0, 1, 256)
    if signed:
        colours, rising = colormaps[SIGNED](rising), np.abs(2 * rising - 1)
    colours[:, 3] = 0.86 * rising**0.6
    return ListedColormap(colours, name=f"{cmap}_see_through")


def phrase_of(array: xr.DataArray) -> str:
    """Return the words of a map or curve, also if they were selected by character span."""
    phrase = str(array.attrs.get("phrase", ""))
    span = re.fullmatch(r"\((\d+), (\d+)\)", phrase)
    return str(array.attrs.get("prompt", ""))[int(span[1]) : int(span[2])] if span else phrase
