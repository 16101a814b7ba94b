"""Clips with checked frame scores and events, the input of all detection scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.errors import EventsError, MapsError
from attnviz.events import PAST_THE_END, event_table
from attnviz.events.table import SHORTEST

TIME_DECIMALS = 6  # compare times to the microsecond, as in sed_scores_eval by default

Edges = np.ndarray | Sequence[float] | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class EventCounts:
    """Counts of ground-truth events.

    Attributes
    ----------
    scored : int
        Scored events, after merging.
    merged : int
        Events merged with an earlier one of the same class and clip that they touch or overlap.
    zero_length : int
        Events shorter than a microsecond, which are not scored.
    clipped : int
        Events cut at the end of their clip, by at most 50 ms. They may also be merged or of zero length.
    """

    scored: int
    merged: int
    zero_length: int
    clipped: int


@dataclass(frozen=True)
class ScoredClip:
    """A clip with frame scores and events.

    Attributes
    ----------
    seconds : float
        Duration of the audio.
    scores : numpy.ndarray, float64, shape (frames, classes)
    edges : numpy.ndarray, float64, shape (frames + 1,)
        Edges in seconds; frame `i` extends from ``edges[i]`` to ``edges[i + 1]``.
    events : tuple of numpy.ndarray, each float64 of shape (events, 2)
        Onsets and offsets in seconds for each class, ascending and disjoint.
    """

    seconds: float
    scores: np.ndarray
    edges: np.ndarray
    events: tuple[np.ndarray, ...]


def scored_clips(
    *,
    scores: Mapping[str, np.ndarray],
    ground_truth: pd.DataFrame,
    durations: Mapping[str, float],
    edges: Edges,
    classes: Sequence[str],
) -> tuple[list[ScoredClip], EventCounts]:
    """Check and combine frame scores, events and durations.

    Parameters
    ----------
    scores : mapping of str to numpy.ndarray
        Scores of each clip, ``(frames, classes)``, finite. Booleans are converted to 0 and 1.
    ground_truth : pandas.DataFrame
        Event table. A row without times is a clip without events.
    durations : mapping of str to float
        Duration of each clip in seconds.
    edges : array-like or mapping of str to array-like
        Edges of the frames in seconds, ``(frames + 1,)``, ascending and non-negative, for all clips or by clip.
    classes : sequence of str
        Labels, in the order of the columns of `scores`.

    Returns
    -------
    list of ScoredClip, EventCounts
        Clips sorted by name, so that sums do not depend on the order of `scores`.

    Raises
    ------
    MapsError
        If scores or edges have a wrong shape, are not finite or not ascending, or there is no clip.
    EventsError
        If classes are missing or repeated; if durations are for other clips or not positive; if the ground truth
        is not an event table, has unknown clips or labels, or exceeds the end of a clip by more than 50 ms.
    """
    labels = _checked_classes(classes)
    if not scores:
        raise MapsError("No scores: 0 clips were given; give at least one.")
    _check_durations(durations, scores)
    events, counts = _events(ground_truth, durations, labels)
    clips = []
    for name in sorted(scores):
        frames = _checked_scores(name, scores[name], len(labels))
        own = _checked_edges(name, edges, len(frames))
        here = tuple(events.get((name, label), np.empty((0, 2))) for label in labels)
        clips.append(ScoredClip(float(durations[name]), frames, own, here))
    return clips, counts


def check_number(name: str, value: float, *, above: float, most: float, hint: str) -> float:
    """Return a setting as a float above `above` and at most `most`, or raise :class:`EventsError`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise EventsError(f"{name} is {value!r}; it must be a number.")
    if not (math.isfinite(value) and above < value <= most):
        limit = f"above {above:g}" + ("" if math.isinf(most) else f" and at most {most:g}")
        raise EventsError(f"{name} is {value:g}; it must be finite and {limit}. {hint}")
    return float(value)


def _checked_classes(classes: Sequence[str]) -> list[str]:
    if isinstance(classes, str):
        raise EventsError(
            f"classes is the text {classes!r}; it must be a sequence of labels. For a single class, use a list."
        )
    labels = list(classes)
    if not labels or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise EventsError(f"classes are {labels[:10]}; they must be one or more unique strings.")
    return labels


def _check_durations(durations: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
    if set(durations) != set(scores):
        absent = sorted(map(str, set(scores) - set(durations)))
        extra = sorted(map(str, set(durations) - set(scores)))
        raise EventsError(
            f"durations and scores must have the same clips; without a duration: {len(absent)} {absent[:5]}, "
            f"without scores: {len(extra)} {extra[:5]}. Do the names differ by their file extension?"
        )
    for clip, seconds in durations.items():
        hint = "It is the duration of the clip in seconds."
        check_number(f"the duration of clip {clip!r}", seconds, above=0.0, most=math.inf, hint=hint)


def _checked_scores(clip: str, values: np.ndarray, columns: int) -> np.ndarray:
    try:
        frames = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapsError(f"The scores of clip {clip!r} are not an array of numbers: {error}") from error
    if frames.ndim != 2 or not len(frames) or frames.shape[1] != columns:
        raise MapsError(
            f"The scores of clip {clip!r} have the shape {frames.shape}; it must be (frames, {columns}), with one "
            f"column per class. Is the array transposed?"
        )
    if not np.isfinite(frames).all():
        raise MapsError(
            f"The scores of clip {clip!r} contain {np.count_nonzero(~np.isfinite(frames))} values that are not "
            f"finite. Are masked columns of padding among the frames?"
        )
    return frames


def _checked_edges(clip: str, edges: Edges, frames: int) -> np.ndarray:
    if isinstance(edges, Mapping) and clip not in edges:
        raise MapsError(f"Clip {clip!r} has scores but no edges. Do the names differ by their file extension?")
    given = edges[clip] if isinstance(edges, Mapping) else edges
    try:
        own = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapsError(f"The edges of clip {clip!r} are not an array of numbers: {error}") from error
    if own.shape != (frames + 1,):
        raise MapsError(
            f"The edges of clip {clip!r} have the shape {own.shape}; {frames} frames need ({frames + 1},): the "
            "start of each frame and the end of the last. Were the centres given?"
        )
    if not np.isfinite(own).all() or own[0] < 0 or (np.diff(own) <= 0).any():
        raise MapsError(f"The edges of clip {clip!r} must be finite, ascending and non-negative.")
    return own


def _events(
    ground_truth: pd.DataFrame, durations: Mapping[str, float], labels: list[str]
) -> tuple[dict[tuple[str, str], np.ndarray], EventCounts]:
    table = event_table(ground_truth)
    strangers = sorted(set(table["clip"]) - set(durations))
    if strangers:
        raise EventsError(
            f"The ground truth has {len(strangers)} clips without scores: {strangers[:5]}. "
            f"Do the names differ by their file extension?"
        )
    table = table[table["onset"].notna()]
    unknown = sorted(set(table["label"]) - set(labels))
    if unknown:
        raise EventsError(f"The ground truth has labels that are not among the classes {labels}: {unknown[:10]}.")
    events: dict[tuple[str, str], np.ndarray] = {}
    scored = merged = zero_length = clipped = 0
    for key, rows in table.groupby(["clip", "label"], sort=True):
        clip, label = map(str, key)
        seconds = float(durations[clip])
        spans = rows[["onset", "offset"]].to_numpy(dtype=np.float64)
        _check_inside(clip, spans, seconds)
        clipped += int((spans[:, 1] > seconds).sum())
        spans = np.minimum(spans, seconds)
        lasting = spans[spans[:, 1] - spans[:, 0] >= SHORTEST]
        events[clip, label] = union(lasting)
        zero_length += len(spans) - len(lasting)
        merged += len(lasting) - len(events[clip, label])
        scored += len(events[clip, label])
    return events, EventCounts(scored, merged, zero_length, clipped)


def _check_inside(clip: str, spans: np.ndarray, seconds: float) -> None:
    late = spans[:, 1].max()
    if late > seconds + PAST_THE_END:
        raise EventsError(
            f"An event of clip {clip!r} ends at {late:g} s, but the clip ends at {seconds:g} s (tolerance "
            f"{PAST_THE_END:g} s). Are the times in seconds?"
        )


def union(spans: np.ndarray) -> np.ndarray:
    """Merge touching or overlapping intervals and return them in ascending order."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reached = np.maximum.accumulate(spans[:, 1])
    first = np.flatnonzero(np.append(True, spans[1:, 0] > reached[:-1]))
    return np.column_stack([spans[first, 0], np.maximum.reduceat(spans[:, 1], first)])
