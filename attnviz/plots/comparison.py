"""Plot curves of several prompts, encoders, models or seeds on the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, Readout
from attnviz.plots.curves import top_of
from attnviz.plots.style import (
    FONTSIZE,
    HZ_TICKS,
    LINE_COLOURS,
    LINE_DASHES,
    Scale,
    check_scale,
    height_of,
    hertz,
    own_axes,
    plain,
    readable,
    text_style,
    wrapped,
)

_MOST_PANELS = 6


@public
def comparison(curves: Mapping[str, xr.DataArray], *, scale: Scale = "shared", ax: Axes | None = None) -> Axes:
    """Draw activation curves of several prompts, encoders, models or seeds on the same axes.

    Parameters
    ----------
    curves : mapping of str to xarray.DataArray
        Results of `AttentionMaps.activation` by name: all over time, or all over frequency. Grids may differ.
    scale : {"shared", "own"}
        Show absolute values, or divide each curve by its maximum. The axis label indicates the choice.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.
        Where to draw; None: a figure of its own (``ax.figure``).

    Returns
    -------
    matplotlib.axes.Axes
        ``lines`` contains one line per curve, in order.

    Raises
    ------
    MapsError
        If there is no curve, a curve has no finite value, dims or quantities differ, or the scale is unknown.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> one, other = example_maps(), example_maps(seed=1)
    >>> ax = comparison({"seed 0": one.activation("dog"), "seed 1": other.activation("dog")})
    >>> ax.get_ylabel()
    'attention probability'
    """
    check_scale(scale)
    dims = {curve.dims for curve in curves.values()}
    if len(dims) != 1 or next(iter(dims)) not in (("time",), ("freq",)):
        raise MapsError(
            "curves must be one or more results of AttentionMaps.activation, all over time or all over "
            f"frequency; they have the dims {sorted(map(str, dims))}."
        )
    axis = str(next(iter(dims))[0])
    quantities = {str(curve.attrs.get("long_name", "attention")) for curve in curves.values()}
    if scale == "shared" and len(quantities) > 1:
        raise MapsError(
            f"The curves have different quantities, {sorted(quantities)}, and cannot share a scale; use the same "
            "readout for all, or scale='own'."
        )
    ax = own_axes(6.6, 2.4) if ax is None else ax
    for (name, curve), colour, dash in zip(curves.items(), cycle(LINE_COLOURS), cycle(LINE_DASHES), strict=False):
        top = top_of(curve, name)
        over = top if scale == "own" else 1.0
        ax.plot(
            curve[axis].to_numpy(), curve.to_numpy() / (over or 1.0), color=colour, linestyle=dash, linewidth=1.4,
            label=readable(name, longest=60),
        )  # fmt: skip
    plain(ax)
    if all(np.nanmin(curve.to_numpy()) >= 0 for curve in curves.values()):
        ax.set_ylim(bottom=0.0)
    if axis == "time":
        ax.set_xlabel("time (s)", fontsize=FONTSIZE + 1)
        ax.set_xlim(0.0, max(_end(curve) for curve in curves.values()))
    else:
        ax.set_xlabel("frequency (Hz)", fontsize=FONTSIZE + 1)
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(HZ_TICKS, [hertz(hz) for hz in HZ_TICKS])
        ends = [curve["freq"].to_numpy()[[0, -1]] for curve in curves.values()]
        ax.set_xlim(np.min(ends), np.max(ends))
    ax.tick_params(labelsize=FONTSIZE)
    label = "share of own maximum" if scale == "own" else next(iter(quantities))
    ax.set_ylabel(wrapped(label, height_of(ax)), fontsize=FONTSIZE + 1)
    legend = ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=_abreast(list(curves)), frameon=False,
        fontsize=FONTSIZE, borderaxespad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set(**text_style())
    return ax


@public
def comparison_panels(
    maps: Mapping[str, AttentionMaps],
    phrases: Sequence[str] = (),
    *,
    readout: Readout = "mean",
    width: float = 6.9,
) -> Figure:
    """Draw the curves of several runs, with one panel per phrase and a separate scale for each.

    Parameters
    ----------
    maps : mapping of str to AttentionMaps
        Maps of the runs by name; the first prompt and image of each is used. The maps must have one text encoder
        (see `AttentionMaps.select`).
    phrases : sequence of str
        Phrases that occur once in every prompt. By default, the words that all prompts have in common. At most six
        are drawn; the figure indicates the total number.
    readout : str or FittedReadout
        See `AttentionMaps.heatmap`.
    width : float
        Width of the figure in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MapsError
        If there are no maps, the prompts have no word in common, or `width` is not from 2 to 100 inches.
    PromptError
        If a phrase is not in one of the prompts, or occurs more than once.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> figure = comparison_panels({"seed 0": example_maps(), "seed 1": example_maps(seed=1)}, ["dog", "rain"])
    >>> [ax.get_title(loc="right") for ax in figure.axes]
    ['dog', 'rain']
    """
    if not maps:
        raise MapsError("There are no maps to compare; give a mapping with at least one entry.")
    if not 2.0 <= width <= 100.0:
        raise MapsError(f"width={width} must be between 2 and 100 inches. Was it given in millimetres or points?")
    common = list(phrases) or _common_words(list(maps.values()))
    if not common:
        prompts = "; ".join(repr(one.prompts[0]) for one in maps.values())
        raise MapsError(f"The prompts have no word in common that occurs once in each: {prompts}.")
    kept = common[:_MOST_PANELS]
    figure = Figure(figsize=(width, 1.25 * len(kept) + 0.5), layout="constrained")
    for number, (phrase, ax) in enumerate(zip(kept, figure.subplots(len(kept), squeeze=False)[:, 0], strict=True)):
        comparison({name: one.activation(phrase, readout=readout) for name, one in maps.items()}, ax=ax)
        ax.set_title(readable(phrase, longest=40), fontsize=FONTSIZE + 1, loc="right", pad=3, **text_style())
        if number and (legend := ax.get_legend()):
            legend.remove()
        figure.supylabel(ax.get_ylabel().replace("\n", " "), fontsize=FONTSIZE + 1)
        ax.set_ylabel("")
        if number < len(kept) - 1:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    if len(kept) < len(common):
        figure.suptitle(f"the first {len(kept)} of {len(common)} words in common", fontsize=FONTSIZE + 1)
    return figure


def _common_words(maps: Sequence[AttentionMaps]) -> list[str]:
    known = [{word.text.casefold() for word in one.occurrences(0) if not word.repeated} for one in maps]
    shared = set.intersection(*known)
    return [word.text for word in maps[0].occurrences(0) if word.text.casefold() in shared]


def _abreast(names: Sequence[str]) -> int:
    """Return the number of legend columns: all names side by side if they are short."""
    longest = max(map(len, names))
    return len(names) if len(names) * (longest + 6) <= 84 else 1 if longest > 40 else 2


def _end(curve: xr.DataArray) -> float:
    time = curve["time"].to_numpy()
    return float(time[-1] + time[0])  # centres of equal shares from 0
