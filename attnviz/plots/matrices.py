"""Matrices: layers by heads, words by words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.plots.heat import scale_bar
from attnviz.plots.style import FONTSIZE, attention_colours, height_of, name_ticks, own_axes, width_of

_MOST_WRITTEN = 10  # rows or columns of a matrix whose values are written into its cells


@public
def layer_heads(
    table: pd.DataFrame,
    value: str = "share",
    *,
    across: str = "head",
    label: str | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a score of layers and heads (or of layers and something else) as a matrix.

    Parameters
    ----------
    table : pandas.DataFrame
        Tidy, a row a layer and head: ``layer``, ``head`` and `value`; for example that of
        `attnviz.maps.attention_share`. Several rows of one cell are averaged. Head -1 is the mean of all.
    value : str
        Column that is drawn.
    across : str
        Column that the matrix's columns are of, in their order there (heads: ascending): ``"timestep"``, ...
    label : str, optional
        What the colour bar says; None: the column's name.
    limits : (float, float), optional
        Ends of the colour scale; None: from 0, or the lowest value where that is below, to the highest.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a figure of its own (``ax.figure``).

    Returns
    -------
    matplotlib.axes.Axes
        The array of its last collection is (layer, head), in the order of the table; cells that have no value are
        masked, and grey.

    Raises
    ------
    MapsError
        A column is missing, or no value is a number.

    Examples
    --------
    >>> from attnviz.maps import attention_share
    >>> from attnviz.testing import example_maps
    >>> ax = layer_heads(attention_share(example_maps(heads=4), "rain"), label="attention share of 'rain'")
    >>> ax.collections[-1].get_array().shape
    (5, 4)
    """
    missing = [name for name in ("layer", across, value) if name not in table.columns]
    if missing:
        raise MapsError(f"the table lacks the columns {missing}; it has {list(table.columns)}.")
    layers, columns = (list(dict.fromkeys(table[name])) for name in ("layer", across))
    if across == "head":
        columns.sort()
    wide = table.pivot_table(index="layer", columns=across, values=value, aggfunc="mean", dropna=False)
    values = np.ma.masked_invalid(wide.reindex(index=layers, columns=columns).to_numpy(dtype=float))
    names = ["mean" if (across, one) == ("head", -1) else _name(one) for one in columns]
    if ax is None:
        ax = own_axes(2.6 + 0.42 * len(columns), 1.1 + 0.24 * len(layers))
    _matrix(ax, values, [str(layer) for layer in layers], names, label or value.replace("_", " "), limits)
    ax.set_ylabel("layer", fontsize=FONTSIZE + 1)
    ax.set_xlabel(across.replace("_", " "), fontsize=FONTSIZE + 1)
    return ax


@public
def word_overlap(matrix: xr.DataArray, *, ax: Axes | None = None) -> Axes:
    """Draw how alike the heat maps of a prompt's words are.

    Parameters
    ----------
    matrix : xarray.DataArray, dims (word, other)
        As `attnviz.maps.word_overlap` gives it. The scale is from 0 to 1, of a correlation from -1 to 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a figure of its own (``ax.figure``).

    Returns
    -------
    matplotlib.axes.Axes
        The array of its last collection is the matrix; undefined cells are masked, and grey.

    Raises
    ------
    MapsError
        The matrix is not square, has fewer than two words, or holds no number.

    Examples
    --------
    >>> from attnviz.maps import word_overlap as measured
    >>> from attnviz.testing import example_maps
    >>> ax = word_overlap(measured(example_maps(), measure="correlation"))
    >>> ax.collections[-1].get_clim()
    (-1.0, 1.0)
    """
    if matrix.ndim != 2 or len(set(matrix.shape)) != 1 or len(matrix) < 2:
        raise MapsError(f"Words are compared in a square matrix of at least 2; this one has shape {matrix.shape}.")
    values = np.ma.masked_invalid(matrix.to_numpy())
    names = [str(name) for name in matrix["word"].to_numpy()]
    if ax is None:
        side = 1.2 + min(0.42 * len(names), 9.0)
        ax = own_axes(side + 1.4, side)
    signed = matrix.name == "correlation"
    label = str(matrix.attrs.get("long_name", "overlap"))
    _matrix(ax, values, names, names, label, (-1.0 if signed else 0.0, 1.0), diverging=signed)
    return ax


def _matrix(
    ax: Axes,
    values: np.ma.MaskedArray,
    rows: list[str],
    columns: list[str],
    label: str,
    limits: tuple[float, float] | None,
    *,
    diverging: bool = False,
) -> None:
    if not values.count():
        raise MapsError(f"No value of {label!r} is a number, so there is nothing to draw.")
    low, high = limits or (min(0.0, float(values.min())), float(values.max()))
    written = max(values.shape) <= _MOST_WRITTEN and width_of(ax) / values.shape[1] > 0.3
    seaborn.heatmap(
        values.filled(np.nan), vmin=low, vmax=high if high > low else low + 1.0, cbar=False, ax=ax,
        cmap=attention_colours("PuOr", 1.0) if diverging else attention_colours("viridis_r"), linewidths=0.4,
        annot=written, fmt=".2f", annot_kws={"fontsize": FONTSIZE - 1.5}, xticklabels=False, yticklabels=False,
    )  # fmt: skip
    cells = next(one for one in reversed(ax.collections) if isinstance(one, QuadMesh))
    name_ticks(ax.yaxis, rows, height_of(ax), first=0.5)
    _name_columns(ax, columns)
    ax.grid(visible=False)
    beyond = (float(values.min()) < low, float(values.max()) > high)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    scale_bar(ax, cells, label, extend=extend)


def _name(column: object) -> str:
    """Write a column's value as short as it is: the timestep 600.0 of a table is 600."""
    return f"{column:g}" if isinstance(column, float) else str(column)


def _name_columns(ax: Axes, names: list[str]) -> None:
    """Name the columns across where there is room, upwards where not."""
    upright = max(map(len, names)) * 0.62 * FONTSIZE / 72 > width_of(ax) / len(names)
    # Across, a name takes its width, which was found to fit; upright its height.
    name_ticks(ax.xaxis, names, width_of(ax) if upright else 100.0, first=0.5)
    if upright:
        ax.tick_params(axis="x", labelrotation=90)
