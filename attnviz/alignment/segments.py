"""The segment-based F-score at a single threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.alignment.scored_clips import (
    TIME_DECIMALS,
    Edges,
    EventCounts,
    ScoredClip,
    check_number,
    scored_clips,
)
from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.wording import short_repr

_MOST_SEGMENTS = 10_000_000  # of a clip


@dataclass(frozen=True, eq=False)
class SegmentF1Result:
    """Segment-based F-scores.

    Attributes
    ----------
    value : float
        Macro F1 in [0, 1], which is the mean over classes; NaN if no class has an event.
    micro : float
        F1 of the total counts of the scored classes, in [0, 1]; NaN if no class has an event.
    per_class : dict of str to float
        F1 of each class in [0, 1]; NaN for classes without events.
    table : pandas.DataFrame
        One row per class (index) with the counts of segments ``tp``, ``fp``, ``fn`` and with ``precision`` (1 if
        there are no detections), ``recall`` and ``f1``. For classes without events, the counts are given and the
        ratios are NaN.
    n_valid : int
        Number of scored classes, which are those with an event.
    events : EventCounts
        Counts of scored, merged and cut events.
    direction : str
        ``"higher"``: higher is better.
    """

    value: float
    micro: float
    per_class: dict[str, float]
    table: pd.DataFrame
    n_valid: int
    events: EventCounts
    direction: str = "higher"

    __repr__ = short_repr


@public
def segment_f1(
    *,
    scores: Mapping[str, np.ndarray],
    ground_truth: pd.DataFrame,
    durations: Mapping[str, float],
    edges: Edges,
    classes: Sequence[str],
    segment_length: float = 1.0,
    threshold: float = 0.5,
) -> SegmentF1Result:
    """Compute segment-based F-scores of frame scores at one threshold.

    A clip is divided into segments. The last one has full length even if the audio is shorter. A class is active
    in a segment if one of its events overlaps it, and detected if a frame that overlaps it has a score above
    `threshold`.

    Parameters
    ----------
    scores : mapping of str to numpy.ndarray
        Scores of each clip, ``(frames, classes)``, finite; or decisions, as booleans or 0 and 1.
    ground_truth : pandas.DataFrame
        An event table (`clip`, `label`, `onset`, `offset` in seconds). A clip without rows has no events.
    durations : mapping of str to float
        Duration of each clip in seconds, for the same clips as `scores`.
    edges : array-like or mapping of str to array-like
        Edges of the frames in seconds, ``(frames + 1,)``, for all clips or by clip.
    classes : sequence of str
        Labels, in the order of the columns of `scores`.
    segment_length : float
        Length of a segment in seconds; at least a microsecond.
    threshold : float
        Detections have scores above it; non-negative.

    Returns
    -------
    SegmentF1Result

    Raises
    ------
    MapsError
        If scores or edges have a wrong shape or are not finite.
    EventsError
        If ground truth, durations, classes, length or threshold are invalid.

    Notes
    -----
    Defined by Mesaros, Heittola and Virtanen (2016), "Metrics for polyphonic sound event detection", Applied
    Sciences 6(6), 162. The boundaries are treated as in sed_scores_eval (Ebbers et al. 2022, arXiv:2201.13148).

    **Differences from the original.** The result equals ``segment_based.fscore`` of sed_scores_eval 0.0.4 for all
    inputs that it accepts. It does not accept classes without events (here NaN, and excluded from both means;
    their false positives are in the table) or touching or overlapping events of a class (here merged, which
    changes no segment). It counts zero-length events in their segment; here, they are not scored. Offsets up to 50
    ms after the clip are cut.

    Examples
    --------
    >>> events = pd.DataFrame({"clip": ["a"], "label": ["dog"], "onset": [0.5], "offset": [2.0]})
    >>> frames = np.array([[0.1], [0.9], [0.8]])
    >>> result = segment_f1(
    ...     scores={"a": frames}, ground_truth=events, durations={"a": 3.0}, edges=[0, 1, 2, 3], classes=["dog"]
    ... )
    >>> result.value, result.table.loc["dog", ["tp", "fp", "fn"]].astype(int).tolist()
    (0.5, [1, 1, 1])
    """
    least = 10.0**-TIME_DECIMALS  # shorter segments would round to nothing
    check_number("segment_length", segment_length, above=least / 2, most=math.inf, hint="It is in seconds.")
    if threshold != 0:
        check_number("threshold", threshold, above=0.0, most=math.inf, hint="Scores lie in [0, 1].")
    clips, counts = scored_clips(
        scores=scores, ground_truth=ground_truth, durations=durations, edges=edges, classes=classes
    )
    most = max((clip.seconds for clip in clips), default=0.0) / segment_length
    if most > _MOST_SEGMENTS:
        raise EventsError(
            f"segment_length is {segment_length:g} s, which cuts the longest clip into {most:.3g} segments; at "
            f"most {_MOST_SEGMENTS:,} are counted."
        )
    table = pd.DataFrame(
        sum(clip_counts(clip, segment_length, threshold) for clip in clips),
        index=pd.Index(list(classes), name="class"),
        columns=["tp", "fp", "fn"],
    )
    valid = np.array([any(len(clip.events[c]) for clip in clips) for c in range(len(classes))])
    rows = table.to_numpy()
    table[["precision", "recall", "f1"]] = [
        ratios(*row) if known else (math.nan,) * 3 for row, known in zip(rows, valid, strict=True)
    ]
    per_class = {str(label): float(value) for label, value in table["f1"].items()}
    if not valid.any():
        return SegmentF1Result(math.nan, math.nan, per_class, table, 0, counts)
    macro = float(table.loc[valid, "f1"].mean())
    micro = ratios(*rows[valid].sum(axis=0))[2]
    return SegmentF1Result(macro, micro, per_class, table, int(valid.sum()), counts)


def clip_counts(clip: ScoredClip, length: float, threshold: float) -> np.ndarray:
    """Return the numbers of true positives, false positives and false negatives of a clip, ``(classes, 3)``."""
    bounds = np.round(np.arange(math.ceil(clip.seconds / length) + 1) * length, TIME_DECIMALS)
    starts, ends = bounds[:-1], bounds[1:]
    present = np.zeros((len(starts), len(clip.events)), dtype=bool)
    for c, events in enumerate(clip.events):
        present[:, c] = ((starts[:, None] < events[:, 1]) & (ends[:, None] > events[:, 0])).any(axis=1)
    detected = _detected(clip, starts, ends, threshold)
    return np.stack([present & detected, detected & ~present, present & ~detected], axis=-1).sum(axis=0)


def _detected(clip: ScoredClip, starts: np.ndarray, ends: np.ndarray, threshold: float) -> np.ndarray:
    """Return whether a frame above the threshold overlaps each segment, ``(segments, classes)``."""
    edges = np.round(clip.edges, TIME_DECIMALS)
    above = np.zeros((len(edges), clip.scores.shape[1]), dtype=np.int64)
    np.cumsum(clip.scores > threshold, axis=0, out=above[1:])  # number of frames above it before each edge
    first = np.maximum(np.searchsorted(edges, starts, side="right") - 1, 0)
    past = np.minimum(np.searchsorted(edges, ends, side="left"), len(edges) - 1)
    return (above[np.maximum(past, first)] - above[first]) > 0


def ratios(tp: int, fp: int, fn: int) -> tuple[float, float, float]:
    """Return precision, recall and F1 of a class with at least one event."""
    precision = float(tp / (tp + fp)) if tp + fp else 1.0
    recall = float(tp / (tp + fn))
    return precision, recall, 2 * precision * recall / (precision + recall) if tp else 0.0
