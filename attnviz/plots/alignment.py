"""Plot a score of maps against sound events, with its controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnviz.alignment import Alignment
from attnviz.alignment.pooling import BETTER
from attnviz.alignment.reading import MAP
from attnviz.alignment.report import NAMES, estimate, headline, method_name, missing, scored_against
from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.plots.style import CONTROL_COLOUR as _CONTROL
from attnviz.plots.style import MAP_COLOUR as _MAP
from attnviz.plots.style import readable, text_style

_MAP_MEAN, _CONTROL_MEAN = "#5c0f3b", "#151d26"
_SPREAD = 0.32
_MANY = 20  # minimum number of phrases for drawing their distribution


@public
def alignment(result: Alignment, *, score: str = "roc_auc", ax: Axes | None = None) -> Axes:
    """Draw one score of every phrase for the map and each control.

    Each point is a phrase (mean over draws), the diamond is their mean with its 95 % interval over source
    recordings, and the dotted line is chance (for the onset error, no error). With at least 20 phrases, their
    distribution is drawn as well. The paired difference, map minus control, is printed beside each control.

    Parameters
    ----------
    result : Alignment
        Result of `attnviz.align`.
    score : str
        Score of phrases, a column of ``result.table``: ``"roc_auc"``, ``"pearson"``, ``"pointing"``, ...
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Rows are methods, from top to bottom: a scatter of points and, in ``containers``, a mean with its interval.
        ``texts`` are the comparisons of the map with each control.

    Raises
    ------
    MapsError
        If the score does not exist, or no phrase has it.

    Examples
    --------
    >>> import attnviz
    >>> from attnviz.testing import example_events, example_maps
    >>> ax = alignment(attnviz.align(example_maps(), example_events()))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['map', 'constant', 'energy', 'reversed']
    """
    values = _values(result, score)
    methods = [method for method in dict.fromkeys(result.table["method"]) if values[method].notna().any()]
    if ax is None:
        height = 1.5 + 0.55 * len(methods)
        ax = Figure(figsize=(7.2, height), layout="constrained").add_subplot()
    pooled = result.pooled.scores.set_index(["method", "score"])
    level = 0.0 if score == "onset_error" else float(pooled.loc[(methods[0], score), "chance"])
    if np.isfinite(level):
        ax.axvline(level, color="0.45", linestyle=":", linewidth=1.2, zorder=1)
    if len(values) >= _MANY:
        _shapes(ax, values, methods)
    for row, method in enumerate(methods):
        known = values[method].dropna().to_numpy()
        colour = _MAP if method == MAP else _CONTROL
        ax.scatter(known, row + _spread(known), s=14, color=colour, alpha=0.45, linewidth=0, zorder=2)
        _mean(ax, row, pooled.loc[(method, score)], _MAP_MEAN if method == MAP else _CONTROL_MEAN)
    _notes(ax, methods, result, score)
    ax.set_yticks(range(len(methods)), [readable(method_name(method)) for method in methods])
    for label in ax.get_yticklabels():
        label.set(**text_style())
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(NAMES[score] + scored_against(result.table))
    left_out = missing(result)
    title = headline(result) + (f"\nnot scored, or cut: {left_out}" if left_out else "")
    ax.set_title(title, fontsize=9, loc="left").set_parse_math(False)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return ax


def _values(result: Alignment, score: str) -> pd.DataFrame:
    """Return ``(phrases, methods)``."""
    table = result.table
    scores = [name for name in NAMES if name in table.columns]
    if score not in scores:
        raise MapsError(f"Unknown score {score!r}; available scores: {', '.join(scores)}.")
    values = table.pivot_table(index="phrase", columns="method", values=score, aggfunc="mean", dropna=False)
    if not values.notna().any(axis=None):
        raise MapsError(
            f"No phrase has a {NAMES[score]}: {len(result.undefined)} of {len(result.phrases)} undefined."
        )
    return values


def _shapes(ax: Axes, values: pd.DataFrame, methods: list[str]) -> None:
    """Draw the distribution of the phrases between the minimum and maximum, unless all are equal."""
    seaborn.violinplot(
        values.melt(value_vars=methods), x="value", y="method", order=methods, hue="method", hue_order=methods,
        palette=[_MAP if method == MAP else _CONTROL for method in methods], legend=False, ax=ax,
        cut=0, inner=None, density_norm="width", width=2.2 * _SPREAD, linewidth=0, saturation=1, alpha=0.2,
    )  # fmt: skip
    ax.set_ylabel("")


def _spread(values: np.ndarray) -> np.ndarray:
    """Return deterministic offsets of the points, so that close points are side by side."""
    if not len(values):
        return np.empty(0)
    width = (np.ptp(values) or 1.0) / 40
    bins = np.round((values - values.min()) / width).astype(int)
    order = np.argsort(bins, kind="stable")
    place = np.empty(len(values))
    place[order] = np.arange(len(values)) - np.searchsorted(bins[order], bins[order])
    count = np.bincount(bins)[bins]
    step = 2 * _SPREAD / max(int(count.max()), 8)
    return (place - (count - 1) / 2) * step


def _mean(ax: Axes, row: int, pooled: pd.Series, colour: str) -> None:
    value, low, high = (float(pooled[name]) for name in ("value", "low", "high"))
    error = None if np.isnan([low, high]).any() else [[max(value - low, 0.0)], [max(high - value, 0.0)]]
    ax.errorbar(
        [value], [row], xerr=error, fmt="D", markersize=7, color=colour, markeredgecolor="white",
        markeredgewidth=1.0, elinewidth=2.2, capsize=4, zorder=4,
    )  # fmt: skip


def _notes(ax: Axes, methods: list[str], result: Alignment, score: str) -> None:
    """Write the paired differences to the right of the axes, in the row of each control."""
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "annotation_clip": False}
    where |= {"fontsize": 8, "va": "center", "ha": "left"}
    rows = result.pooled.differences
    rows = rows[(rows["score"] == score) & rows["control"].isin(methods) & rows["value"].notna()]
    if rows.empty:
        return
    judged = result.pooled.comparisons
    together = f"\n({judged} comparisons tested together)" if judged else ""
    ax.annotate(f"map minus control:{together}", (1.02, methods.index(MAP)), color="0.25", **where)
    for control, value, low, high, verdict in rows[["control", "value", "low", "high", "verdict"]].to_numpy():
        gap = estimate(value, low, high, sign=True) + (f"\n{verdict}" if verdict else "")
        colour = _MAP if verdict == BETTER else "0.25"
        ax.annotate(gap, (1.02, methods.index(control)), color=colour, **where)
