"""Plot activation curves over the bars of sound events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.events import Heard, events_of
from attnviz.events.origin import origin_name
from attnviz.maps import AttentionMaps, Readout
from attnviz.plots.style import (
    EVENT_COLOUR,
    FONTSIZE,
    MAP_COLOUR,
    Scale,
    check_scale,
    height_of,
    label_time,
    name_ticks,
    own_axes,
    plain,
    width_of,
    wrapped,
)
from attnviz.text.sounds import find_label
from attnviz.wording import counted

_LANE = 0.86  # fraction of the height between two phrases


@dataclass(frozen=True)
class _Lane:
    name: str
    span: tuple[int, int] | None
    times: np.ndarray


@public
def activations(
    maps: AttentionMaps,
    events: pd.DataFrame | Heard | None = None,
    *,
    phrases: Iterable[str | tuple[int, int]] | None = None,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    pool: str = "mean",
    scale: Scale = "own",
    ax: Axes | None = None,
) -> Axes:
    """Draw the activation of each phrase over time, with bars for the events of its sound.

    Parameters
    ----------
    maps : AttentionMaps
    events : pandas.DataFrame or Hearing, optional
        Event table of the clip, in which rows of other captions are ignored, or result of `attnviz.listen`. A
        label is located in the prompt by its ``span``, its words or the words of its class. A label that is not in
        the prompt has bars but no curve, and is marked.
    phrases : iterable of str or (int, int), optional
        Phrases to draw. By default, the phrases named by the events, or every word if there are no events.
    prompt_index, sample, readout, pool
        See `AttentionMaps.activation`.
    scale : {"own", "shared"}
        Scale each curve to its own maximum, or all to the common maximum. The figure indicates the choice.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.
        Where to draw; None: a figure of its own (``ax.figure``).

    Returns
    -------
    matplotlib.axes.Axes
        ``collections`` are the filled curves from top to bottom (labels that are not in the prompt have none). The
        first ``patches`` are the bars of the events, from top to bottom and in order of time.

    Raises
    ------
    MapsError
        If there is no phrase, the scale is unknown, or no column contains audio. See also
        `AttentionMaps.activation`.
    EventsError
        If `events` is not an event table.
    PromptError
        If a phrase is not in the prompt, or occurs more than once.

    Examples
    --------
    >>> from attnviz.testing import example_events, example_maps
    >>> ax = activations(example_maps(), example_events())
    >>> [label.get_text() for label in ax.get_yticklabels()], len(ax.collections)
    (['dog barks', 'rain falls'], 2)
    """
    check_scale(scale)
    lanes = _lanes(maps, events, phrases, prompt_index)
    if not lanes:
        raise MapsError(
            "There is no phrase to draw: no word of the prompt was stored in full, and no events were given."
        )
    curves = {
        number: maps.activation(lane.span, prompt_index=prompt_index, sample=sample, readout=readout, pool=pool)
        for number, lane in enumerate(lanes)
        if lane.span is not None
    }
    tops = {number: top_of(curve) for number, curve in curves.items()}
    common = max(tops.values(), default=1.0)
    ax = own_axes(6.6, 1.1 + 0.42 * len(lanes)) if ax is None else ax
    for number, lane in enumerate(lanes):
        foot = number + _LANE / 2  # the axis points downwards
        for onset, offset in lane.times:
            ax.add_patch(
                Rectangle((onset, foot - _LANE), offset - onset, _LANE, facecolor=EVENT_COLOUR, linewidth=0)
            )
        ax.axhline(foot, color="0.7", linewidth=0.6, zorder=1)
        if number in curves:
            _fill(ax, curves[number], foot, tops[number] if scale == "own" else common, maps)
    named = [lane.name + ("" if lane.span else " (not in the prompt)") for lane in lanes]
    name_ticks(ax.yaxis, named, height_of(ax))
    ax.set_ylim(len(lanes) - 0.5, -0.55)
    label_time(ax, maps.grid)
    plain(ax, "left")
    _hatch_beyond(ax, maps)
    quantity = next((str(curve.attrs["long_name"]) for curve in curves.values()), "attention")
    rule = "each from 0 to its own maximum" if scale == "own" else f"all from 0 to {common:.2g}"
    label = wrapped(f"{quantity}, {rule}", width_of(ax) - 0.3, FONTSIZE)  # a column of a paper is narrow
    keys: list[Patch] = [Patch(facecolor=MAP_COLOUR, alpha=0.55, label=label)] if curves else []
    if events is not None and any(len(lane.times) for lane in lanes):
        keys.append(
            Patch(facecolor=EVENT_COLOUR, label=origin_name(events_of(events, maps.prompts[prompt_index])))
        )
    beside = "      ".join(str(key.get_label()) for key in keys)
    ax.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0.0, 1.0),
        ncols=1 if "\n" in wrapped(beside, width_of(ax) - 0.3, FONTSIZE) else 2,
        fontsize=FONTSIZE, frameon=False,
        borderaxespad=0.2, handlelength=1.4,
    )  # fmt: skip
    return ax


def _lanes(
    maps: AttentionMaps,
    events: pd.DataFrame | Heard | None,
    phrases: Iterable[str | tuple[int, int]] | None,
    prompt_index: int,
) -> list[_Lane]:
    if not 0 <= prompt_index < len(maps.prompts):
        raise MapsError(
            f"There is no prompt {prompt_index}; the maps have "
            f"{counted(len(maps.prompts), 'prompt')}, indexed from 0."
        )
    text, table = maps.prompts[prompt_index], maps.tokens[prompt_index]
    labelled = event_places(events, text)
    if phrases is not None:
        words = {word.span: word.label for word in maps.occurrences(prompt_index)}
        spans = [table.phrase_span(phrase) for phrase in phrases]
        return [_Lane(words.get(span, text[slice(*span)]), span, _within(labelled, span)) for span in spans]
    if labelled:
        return [
            _Lane(text[slice(*span)] if span else label, span, times) for (label, span), times in labelled.items()
        ]
    return [_Lane(word.label, word.span, np.empty((0, 2))) for word in maps.occurrences(prompt_index)]


def event_places(
    events: pd.DataFrame | Heard | None, text: str
) -> dict[tuple[str, tuple[int, int] | None], np.ndarray]:
    """Return onsets and offsets, ``(events, 2)`` in s, by label and span, in the order of the prompt.

    A label that is not in the prompt, or occurs more than once and has no span, has the span None and comes last.

    Raises
    ------
    EventsError
        If `events` is not an event table.
    """
    if events is None:
        return {}
    table = events_of(events, text)
    spans = table["span"] if "span" in table.columns else pd.Series([None] * len(table), dtype=object)
    found: dict[tuple[str, tuple[int, int] | None], list[tuple[float, float]]] = {}
    for label, span, onset, offset in zip(table["label"], spans, table["onset"], table["offset"], strict=True):
        places = [span] if span else find_label(text, label) if label else []
        if label:
            times = found.setdefault((label, places[0] if len(places) == 1 else None), [])
            times += [] if np.isnan(onset) else [(onset, offset)]
    ordered = sorted(found.items(), key=lambda item: item[0][1] or (len(text), 0))
    return {key: np.array(times).reshape(-1, 2) for key, times in ordered}


def _within(
    labelled: Mapping[tuple[str, tuple[int, int] | None], np.ndarray], span: tuple[int, int]
) -> np.ndarray:
    """Return the events of the labels that overlap a phrase."""
    times = [own for (_, place), own in labelled.items() if place and place[0] < span[1] and place[1] > span[0]]
    return np.concatenate(times) if times else np.empty((0, 2))


def _fill(ax: Axes, curve: xr.DataArray, foot: float, top: float, maps: AttentionMaps) -> None:
    values = curve.to_numpy().astype(float)
    column = curve.attrs["stride"][1] * maps.grid.hop_length / maps.grid.sampling_rate
    edges = np.arange(values.size + 1) * column
    heard = int(np.flatnonzero(np.isfinite(values))[-1]) + 1  # columns before the padding, which is at the end
    # A value extends from the left edge to the right edge of its column, including the last one with audio.
    steps = np.append(values[:heard], values[heard - 1]) / (top or 1.0)
    # If a curve has negative values, as for a word with a negative weight, 0 is in the middle of its lane.
    zero, height = (foot - _LANE / 2, _LANE / 2) if (steps < 0).any() else (foot, _LANE)
    ax.fill_between(
        edges[: heard + 1], zero - height * steps, zero, step="post",
        facecolor=MAP_COLOUR, alpha=0.55, edgecolor=MAP_COLOUR, linewidth=0.8, zorder=3,
    )  # fmt: skip


def top_of(curve: xr.DataArray, name: str = "") -> float:
    """Return the maximum of a curve, or of its magnitude if it has negative values.

    Raises
    ------
    MapsError
        If the curve has no finite value.
    """
    values = curve.to_numpy()
    if not np.isfinite(values).any():
        raise MapsError(
            f"The curve {name or curve.attrs.get('phrase', '')!r} has no finite value: all of its columns are "
            "padding. The clip is shorter than half a column."
        )
    return float(np.nanmax(np.abs(values)))


def _hatch_beyond(ax: Axes, maps: AttentionMaps) -> None:
    end = maps.grid.audio_seconds
    if end is not None and end < maps.grid.seconds:
        ax.axvspan(end, maps.grid.seconds, facecolor="0.85", edgecolor="0.55", hatch="////", linewidth=0, zorder=5)
