"""Plot matrices: layers by heads, words by words."""

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

_MOST_WRITTEN = 10  # maximum number of rows or columns of a matrix with written values


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
    """Draw a score of layers and heads (or of layers and another column) as a matrix.

    Parameters
    ----------
    table : pandas.DataFrame
        Long-format table with one row per layer and head: ``layer``, ``head`` and `value`, for example from
        `attnviz.maps.attention_share`. Several rows of the same cell are averaged. Head -1 is the mean over heads.
    value : str
        Column of the values.
    across : str
        Column for the horizontal axis, in order of appearance (heads: ascending), such as ``"timestep"``.
    label : str, optional
        Label of the colour bar. By default, the name of the column.
    limits : (float, float), optional
        Limits of the colour scale. By default, from 0 (or the minimum, if negative) to the maximum.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The array of its last collection is (layer, head), in the order of the table. Cells without a value are
        masked and grey.

    Raises
    ------
    MapsError
        If a column is missing, or there is no finite value.

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
        raise MapsError(f"The table lacks the columns {missing}; it has {list(table.columns)}.")
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
    """Draw the similarity of the heat maps of the words of a prompt.

    Parameters
    ----------
    matrix : xarray.DataArray, dims (word, other)
        Result of `attnviz.maps.word_overlap`. The scale is from 0 to 1, or from -1 to 1 for correlations.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The array of its last collection is the matrix; undefined cells are masked and grey.

    Raises
    ------
    MapsError
        If the matrix is not square, has fewer than two words, or has no finite value.

    Examples
    --------
    >>> from attnviz.maps import word_overlap as measured
    >>> from attnviz.testing import example_maps
    >>> ax = word_overlap(measured(example_maps(), measure="correlation"))
    >>> ax.collections[-1].get_clim()
    (-1.0, 1.0)
    """
    if matrix.ndim != 2 or len(set(matrix.shape)) != 1 or len(matrix) < 2:
        raise MapsError(f"matrix must be square with at least 2 words; it has the shape {matrix.shape}.")
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
        raise MapsError(f"No value of {label!r} is finite, so there is nothing to draw.")
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
    """Format a value of a column briefly: the timestep 600.0 as 600."""
    return f"{column:g}" if isinstance(column, float) else str(column)


def _name_columns(ax: Axes, names: list[str]) -> None:
    """Label the columns, horizontally if there is room and otherwise vertically."""
    upright = max(map(len, names)) * 0.62 * FONTSIZE / 72 > width_of(ax) / len(names)
    # A horizontal label needs its width, which fits here; a vertical one its height.
    name_ticks(ax.xaxis, names, width_of(ax) if upright else 100.0, first=0.5)
    if upright:
        ax.tick_params(axis="x", labelrotation=90)
