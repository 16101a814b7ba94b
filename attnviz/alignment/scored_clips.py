"""Clips with frame scores and the events in them, checked: what every detection score starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.errors import EventsError, MapsError
from attnviz.events import PAST_THE_END, event_table
from attnviz.events.table import SHORTEST

TIME_DECIMALS = 6  # times are compared to the microsecond, as sed_scores_eval does by default

Edges = np.ndarray | Sequence[float] | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class EventCounts:
    """What became of the rows of the ground truth.

    Attributes
    ----------
    scored : int
        Events that were scored, after merging.
    merged : int
        Events that touched or overlapped an earlier one of their class and clip, and became part of it.
    zero_length : int
        Events shorter than a microsecond, not scored.
    clipped : int
        Events cut at the end of their clip, by at most 50 ms. One of these may also be merged or of no length.
    """

    scored: int
    merged: int
    zero_length: int
    clipped: int


@dataclass(frozen=True)
class ScoredClip:
    """One clip.

    Attributes
    ----------
    seconds : float
        Length of the audio.
    scores : numpy.ndarray, float64, shape (frames, classes)
    edges : numpy.ndarray, float64, shape (frames + 1,)
        Seconds; frame `i` reaches from ``edges[i]`` to ``edges[i + 1]``.
    events : tuple of numpy.ndarray, each float64 of shape (events, 2)
        Onsets and offsets in seconds, one array a class, ascending, without contact.
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
    """Check and join frame scores, events and durations.

    Parameters
    ----------
    scores : mapping of str to numpy.ndarray
        Clip -> ``(frames, classes)``, finite. Booleans are taken as 0 and 1.
    ground_truth : pandas.DataFrame
        An event table. A row without times is a clip without events.
    durations : mapping of str to float
        Clip -> seconds, for the same clips.
    edges : array-like or mapping of str to array-like
        Edges of the frames in seconds, ``(frames + 1,)``, ascending from 0 or later; of every clip, or by clip.
    classes : sequence of str
        Labels, in the order of the columns of `scores`.

    Returns
    -------
    list of ScoredClip, EventCounts
        Clips by name, so that no sum depends on the order of `scores`.

    Raises
    ------
    MapsError
        Scores or edges that cannot be: a wrong shape, not finite, not ascending, no clip at all.
    EventsError
        Classes are missing or repeated; durations are of other clips or not positive; the ground truth is no
        event table, names a clip or a label that was not scored, or passes the end of its clip by over 50 ms.
    """
    labels = _checked_classes(classes)
    if not scores:
        raise MapsError("there are no scores: 0 clips were given, 1 or more are needed.")
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
    """Return a setting as a float that is above `above` and at most `most`, or raise :class:`EventsError`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise EventsError(f"{name} is {value!r}; a number is needed.")
    if not (math.isfinite(value) and above < value <= most):
        limit = f"above {above:g}" + ("" if math.isinf(most) else f" and at most {most:g}")
        raise EventsError(f"{name} is {value:g}; a finite value {limit} is needed. {hint}")
    return float(value)


def _checked_classes(classes: Sequence[str]) -> list[str]:
    if isinstance(classes, str):
        raise EventsError(f"classes is the text {classes!r}; a sequence of labels is needed. Is it one class?")
    labels = list(classes)
    if not labels or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise EventsError(f"classes are {labels[:10]}; one or more texts, each once, are needed.")
    return labels


def _check_durations(durations: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
    if set(durations) != set(scores):
        absent = sorted(map(str, set(scores) - set(durations)))
        extra = sorted(map(str, set(durations) - set(scores)))
        raise EventsError(
            f"durations and scores need the same clips; without a duration: {len(absent)} {absent[:5]}, "
            f"without scores: {len(extra)} {extra[:5]}. Do the names differ by their extension?"
        )
    for clip, seconds in durations.items():
        hint = "The length of the clip is meant, in seconds."
        check_number(f"the duration of clip {clip!r}", seconds, above=0.0, most=math.inf, hint=hint)


def _checked_scores(clip: str, values: np.ndarray, columns: int) -> np.ndarray:
    try:
        frames = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapsError(f"the scores of clip {clip!r} are no array of numbers: {error}") from error
    if frames.ndim != 2 or not len(frames) or frames.shape[1] != columns:
        raise MapsError(
            f"the scores of clip {clip!r} have the shape {frames.shape}; (frames, {columns}) is needed, one "
            f"column a class. Is the array transposed?"
        )
    if not np.isfinite(frames).all():
        raise MapsError(
            f"the scores of clip {clip!r} hold {np.count_nonzero(~np.isfinite(frames))} values that are not "
            f"finite. Are masked columns of padding among the frames?"
        )
    return frames


def _checked_edges(clip: str, edges: Edges, frames: int) -> np.ndarray:
    if isinstance(edges, Mapping) and clip not in edges:
        raise MapsError(f"clip {clip!r} has scores and no edges. Do the names differ by their extension?")
    given = edges[clip] if isinstance(edges, Mapping) else edges
    try:
        own = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapsError(f"the edges of clip {clip!r} are no array of numbers: {error}") from error
    if own.shape != (frames + 1,):
        raise MapsError(
            f"the edges of clip {clip!r} have the shape {own.shape}; {frames} frames need ({frames + 1},): "
            f"where each begins, and where the last ends. Were the centres given?"
        )
    if not np.isfinite(own).all() or own[0] < 0 or (np.diff(own) <= 0).any():
        raise MapsError(f"the edges of clip {clip!r} have to be finite and ascend from 0 s or later.")
    return own


def _events(
    ground_truth: pd.DataFrame, durations: Mapping[str, float], labels: list[str]
) -> tuple[dict[tuple[str, str], np.ndarray], EventCounts]:
    table = event_table(ground_truth)
    strangers = sorted(set(table["clip"]) - set(durations))
    if strangers:
        raise EventsError(
            f"the ground truth has {len(strangers)} clips without scores: {strangers[:5]}. "
            f"Do the names differ by their extension?"
        )
    table = table[table["onset"].notna()]
    unknown = sorted(set(table["label"]) - set(labels))
    if unknown:
        raise EventsError(f"the ground truth has labels that are not among the classes {labels}: {unknown[:10]}.")
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
            f"an event of clip {clip!r} ends at {late:g} s; the clip ends at {seconds:g} s, and at most "
            f"{PAST_THE_END:g} s more are clipped. Are the times in seconds?"
        )


def union(spans: np.ndarray) -> np.ndarray:
    """Return intervals joined where they touch or overlap, ascending."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reached = np.maximum.accumulate(spans[:, 1])
    first = np.flatnonzero(np.append(True, spans[1:, 0] > reached[:-1]))
    return np.column_stack([spans[first, 0], np.maximum.reduceat(spans[:, 1], first)])
