"""Plot the saved scores of a run: every phrase for the map and its controls."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from attnviz.alignment.reading import MAP
from attnviz.alignment.report import NAMES, method_name, phrase_names, scored_against, scored_maps
from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.plots.style import (
    CONTROL_COLOUR,
    FONTSIZE,
    MAP_COLOUR,
    height_of,
    name_ticks,
    own_axes,
    plain,
    readable,
    text_style,
    width_of,
    wrapped,
)

_MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">", "p", "h")


@public
def phrase_scores(table: pd.DataFrame, score: str = "roc_auc", *, ax: Axes | None = None) -> Axes:
    """Draw one score of every phrase for the map and each control, from a saved table.

    For intervals and pooled scores, use `attnviz.plots.alignment`, which requires the whole result.

    Parameters
    ----------
    table : pandas.DataFrame
        `Alignment.table`, or ``alignment.csv`` of a run, with the columns ``phrase``, ``label``, ``method``,
        ``undefined`` and the score. Draws of a control are averaged.
    score : str
        Column of the table: ``"roc_auc"``, ``"pearson"``, ``"pointing"``, ...
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        One line per method contains its marks, in the order of the legend: ``ax.get_legend_handles_labels()``.

    Raises
    ------
    MapsError
        If a column is missing, or no phrase has the score.

    Examples
    --------
    >>> import attnviz
    >>> from attnviz.testing import example_events, example_maps
    >>> result = attnviz.align(example_maps(), example_events())
    >>> phrase_scores(result.table).get_legend_handles_labels()[1]
    ['map', 'constant', 'energy', 'reversed']
    """
    missing = [name for name in ("phrase", "label", "method", "undefined", score) if name not in table.columns]
    if missing:
        raise MapsError(f"The table of scores lacks the columns {missing}; use a table written by attnviz align.")
    values = table.pivot_table(index="phrase", columns="method", values=score, aggfunc="mean", dropna=False)
    rows = table.drop_duplicates("phrase").set_index("phrase")
    methods = [name for name in dict.fromkeys(table["method"]) if name in values and values[name].notna().any()]
    if not methods:
        reasons = sorted(set(rows["undefined"].dropna()) - {""})
        raise MapsError(
            f"No phrase has a {NAMES.get(score, score)}: {', '.join(reasons) or 'the table is empty'}."
        )
    ax = own_axes(6.6, 1.3 + 0.26 * len(rows)) if ax is None else ax
    places = pd.Series(range(len(rows)), index=rows.index)
    controls = [name for name in methods if name != MAP]
    for method in methods:
        own = method == MAP
        marker = "D" if own else _MARKERS[controls.index(method) % len(_MARKERS)]
        ax.plot(
            values[method].reindex(rows.index).to_numpy(dtype=float), places.to_numpy(), linestyle="none",
            marker=marker, markersize=6 if own else 5, color=MAP_COLOUR if own else "none",
            markeredgecolor="white" if own else CONTROL_COLOUR, markeredgewidth=0.8 if own else 1.1,
            label=readable(method_name(method), longest=30), zorder=3 if own else 4,  # hollow marks hide nothing
        )  # fmt: skip
    whys = rows["undefined"].fillna("").astype(str)
    names = [f"{name} ({why})" if why else name for name, why in zip(phrase_names(rows), whys, strict=True)]
    for place in places:
        ax.axhline(place, color="0.85", linewidth=0.7, zorder=1)
    name_ticks(ax.yaxis, names, height_of(ax))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    plain(ax, "left")
    ax.tick_params(axis="x", labelsize=FONTSIZE)
    label = NAMES.get(score, score.replace("_", " ")) + scored_against(table)
    readouts, widths = scored_maps(table)
    if readouts:  # the maps beside this figure may be of another one
        columns = f", columns of {' and '.join(f'{round(width, 1):g}' for width in widths)} ms" if widths else ""
        label += f"; readout {' and '.join(readouts)}{columns}"
    ax.set_xlabel(wrapped(label, width_of(ax)), fontsize=FONTSIZE + 1)
    legend = ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=min(len(methods), 5), frameon=False, fontsize=FONTSIZE,
        handletextpad=0.2, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(**text_style())
    return ax
