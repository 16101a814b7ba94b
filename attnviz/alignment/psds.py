"""The polyphonic sound detection score, computed exactly over all thresholds."""

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

_HOUR = 3600.0  # effective false positives are counted per hour


@dataclass(frozen=True)
class Criteria:
    """Criteria for relevant detections, detected events and cross triggers; see :func:`psds`."""

    dtc: float
    gtc: float
    cttc: float | None
    alpha_ct: float


@dataclass(frozen=True, eq=False)
class PsdsResult:
    """A polyphonic sound detection score.

    Attributes
    ----------
    value : float
        Score in [0, 1]; NaN if no class has an event.
    per_class : dict of str to float
        Score of each class in [0, 1], without the penalty over classes. NaN for classes without events.
    efpr : numpy.ndarray, float64, shape (points,)
        Effective false positives per hour, ascending from 0 to ``max_efpr``. Empty if `value` is NaN.
    etpr : numpy.ndarray, float64, shape (points,)
        Effective true positive ratio in [0, 1] from each point of `efpr` to the next.
    n_valid : int
        Number of scored classes, which are those with an event.
    events : EventCounts
        Counts of scored, merged and cut events.
    direction : str
        ``"higher"``: higher is better.
    """

    value: float
    per_class: dict[str, float]
    efpr: np.ndarray
    etpr: np.ndarray
    n_valid: int
    events: EventCounts
    direction: str = "higher"

    __repr__ = short_repr


@public
def psds(
    *,
    scores: Mapping[str, np.ndarray],
    ground_truth: pd.DataFrame,
    durations: Mapping[str, float],
    edges: Edges,
    classes: Sequence[str],
    dtc_threshold: float = 0.7,
    gtc_threshold: float = 0.7,
    cttc_threshold: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    max_efpr: float = 100.0,
) -> PsdsResult:
    """Compute the polyphonic sound detection score (PSDS) of frame scores over all thresholds.

    The defaults are those of PSDS1 in DCASE task 4 (DESED). At a threshold, each run of frames of a class at or
    above it is a detection. A detection is *relevant* if events of its class cover at least the fraction
    `dtc_threshold` of it, and otherwise a false positive. An event is detected if relevant detections cover at
    least the fraction `gtc_threshold` of it. The curve of a class is the fraction of detected events over the
    false positives per hour. The score is the area, up to `max_efpr`, under the mean of these curves over classes
    minus `alpha_st` times their standard deviation. Each class has its own threshold at every point of the curve.

    Parameters
    ----------
    scores : mapping of str to numpy.ndarray
        Scores of each clip, ``(frames, classes)``, finite. Only their order within a class matters. Exclude
        columns of padding, where detections would be false positives.
    ground_truth : pandas.DataFrame
        An event table (`clip`, `label`, `onset`, `offset` in seconds). A clip without rows has no events.
    durations : mapping of str to float
        Duration of each clip in seconds, for the same clips as `scores`.
    edges : array-like or mapping of str to array-like
        Edges of the frames in seconds, ``(frames + 1,)``, for all clips or by clip.
    classes : sequence of str
        Labels, in the order of the columns of `scores`.
    dtc_threshold, gtc_threshold : float
        Detection tolerance and ground truth intersection criteria, in (0, 1].
    cttc_threshold : float, optional
        Cross-trigger tolerance criterion in (0, 1]: minimum fraction of a false positive covered by events of
        another class. Required if and only if `alpha_ct` is not 0.
    alpha_ct : float
        Non-negative weight of the cross triggers. Their rate per hour of the other class's events, averaged over
        the other classes, is added to the false positives per hour.
    alpha_st : float
        Non-negative weight of the standard deviation over classes.
    max_efpr : float
        Upper limit of the area, in effective false positives per hour; above 0.

    Returns
    -------
    PsdsResult

    Raises
    ------
    MapsError
        If scores or edges have a wrong shape or are not finite.
    EventsError
        If ground truth, durations, classes or criteria are invalid.

    Notes
    -----
    The score is defined by Bilen et al. (2020), "A framework for the robust evaluation of sound event detection",
    arXiv:1910.08440. The computation over all thresholds follows Ebbers, Haeb-Umbach and Serizel (2022),
    "Threshold independent evaluation of sound event detection scores", arXiv:2201.13148: counts change only at the
    scores of a clip, so the changes of all clips, sorted by score and accumulated, are the counts of the data set.
    A class needs memory of (frames x frames) of one clip.

    **Differences from the original.** The result equals ``intersection_based.psds`` of sed_scores_eval 0.0.4 for
    all inputs that it accepts. It does not accept the following, which occur in real annotations: classes without
    events (here NaN, and excluded from the mean, the standard deviation and the cross triggers; `n_valid` is the
    number of the others), and touching or overlapping events of a class (here merged and counted). It treats a
    zero-length event as never detected; here, such events are not scored. Offsets up to 50 ms after the clip are
    cut.

    Examples
    --------
    >>> events = pd.DataFrame({"clip": ["a"], "label": ["dog"], "onset": [1.0], "offset": [2.0]})
    >>> frames = np.array([[0.1], [0.9], [0.2]])
    >>> result = psds(
    ...     scores={"a": frames}, ground_truth=events, durations={"a": 3.0}, edges=[0, 1, 2, 3], classes=["dog"]
    ... )
    >>> float(result.value), result.n_valid
    (1.0, 1)
    """
    criteria = _checked_criteria(dtc_threshold, gtc_threshold, cttc_threshold, alpha_ct)
    check_number("max_efpr", max_efpr, above=0.0, most=math.inf, hint="It is a rate per hour.")
    _check_weight("alpha_st", alpha_st)
    clips, counts = scored_clips(
        scores=scores, ground_truth=ground_truth, durations=durations, edges=edges, classes=classes
    )
    valid = [c for c in range(len(classes)) if any(len(clip.events[c]) for clip in clips)]
    curves = [_class_curve(clips, c, valid, criteria, max_efpr) for c in valid]
    per_class = dict.fromkeys(classes, math.nan)
    per_class |= {classes[c]: area(efpr, tpr, max_efpr) for c, (efpr, tpr) in zip(valid, curves, strict=True)}
    if not curves:
        return PsdsResult(math.nan, per_class, np.empty(0), np.empty(0), 0, counts)
    efpr, etpr = _overall(curves, alpha_st)
    value = area(efpr, etpr, max_efpr)
    closed = np.append(efpr, max_efpr), np.append(etpr, etpr[-1])
    return PsdsResult(value, per_class, *closed, n_valid=len(valid), events=counts)


def _checked_criteria(dtc: float, gtc: float, cttc: float | None, alpha_ct: float) -> Criteria:
    hint = "It is a fraction; was a percentage given?"
    dtc = check_number("dtc_threshold", dtc, above=0.0, most=1.0, hint=hint)
    gtc = check_number("gtc_threshold", gtc, above=0.0, most=1.0, hint=hint)
    alpha_ct = _check_weight("alpha_ct", alpha_ct)
    if (cttc is None) != (alpha_ct == 0):
        raise EventsError(
            f"cttc_threshold is {cttc} and alpha_ct is {alpha_ct:g}; with cross triggers, give a threshold and a "
            f"weight above 0; without, cttc_threshold=None and alpha_ct=0."
        )
    if cttc is not None:
        cttc = check_number("cttc_threshold", cttc, above=0.0, most=1.0, hint=hint)
    return Criteria(dtc, gtc, cttc, alpha_ct)


def _check_weight(name: str, value: float) -> float:
    hint = "It is the weight of a penalty; 0 disables it."
    return 0.0 if value == 0 else check_number(name, value, above=0.0, most=math.inf, hint=hint)


def _class_curve(
    clips: list[ScoredClip], column: int, valid: list[int], criteria: Criteria, max_efpr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the curve of a class: effective false positives per hour and fraction of detected events."""
    others = [c for c in valid if c != column] if criteria.cttc is not None else []
    steps = [clip_steps(clip, column, others, criteria) for clip in clips]
    levels, inverse = np.unique(np.concatenate([level for level, _ in steps]), return_inverse=True)
    changes = np.zeros((len(levels) + 1, 2 + len(others)), dtype=np.int64)
    np.add.at(changes, inverse, np.concatenate([change for _, change in steps]))
    # From above the highest score (last row: no detection) to below the lowest.
    counts = np.cumsum(changes[::-1], axis=0)
    events = sum(len(clip.events[column]) for clip in clips)
    rate = counts[:, 1] / math.fsum(clip.seconds for clip in clips)
    if others:
        lengths = [math.fsum(np.diff(clip.events[c]).sum() for clip in clips) for c in others]
        rate = rate + criteria.alpha_ct * np.mean(counts[:, 2:] / lengths, axis=1)
    return staircase(rate * _HOUR, counts[:, 0] / events, max_efpr)


def clip_steps(
    clip: ScoredClip, column: int, others: list[int], criteria: Criteria
) -> tuple[np.ndarray, np.ndarray]:
    """Return the score levels of a clip, and the change of its counts as the threshold decreases to each level.

    The counts are (detected events, false positives, cross triggers with each of `others`).
    """
    levels = np.unique(clip.scores[:, column])
    level, starts, ends = _detections(clip.scores[:, column], levels, clip.edges)
    needed = criteria.dtc * (ends - starts)
    shared = _overlaps(starts, ends, clip.events[column])
    relevant = np.round(shared.sum(axis=1), TIME_DECIMALS) >= np.round(needed, TIME_DECIMALS)
    counts = np.zeros((len(levels) + 1, 2 + len(others)), dtype=np.int64)
    counts[:-1, 0] = _found(level[relevant], shared[relevant], clip.events[column], len(levels), criteria.gtc)
    counts[:-1, 1] = np.bincount(level[~relevant], minlength=len(levels))
    for place, other in enumerate(others, start=2):
        foreign = _overlaps(starts, ends, clip.events[other]).sum(axis=1) * ~relevant
        tolerated = np.round((criteria.cttc or 0.0) * (ends - starts), TIME_DECIMALS)
        crossing = np.round(foreign, TIME_DECIMALS) >= tolerated
        counts[:-1, place] = np.bincount(level[crossing], minlength=len(levels))
    return levels, counts[:-1] - counts[1:]


def _detections(
    scores: np.ndarray, levels: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every run of frames at or above each level: the level's index, start and end in seconds."""
    active = np.zeros((len(levels), len(scores) + 2), dtype=np.int8)
    active[:, 1:-1] = scores >= levels[:, None]
    change = np.diff(active, axis=1)
    level, first = np.nonzero(change == 1)
    _, past = np.nonzero(change == -1)  # also by rows; each row has as many ends as starts
    return level, edges[first], edges[past]


def _overlaps(starts: np.ndarray, ends: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return the overlap of each detection with each event in seconds, ``(detections, events)``."""
    shared = np.minimum(ends[:, None], events[:, 1]) - np.maximum(starts[:, None], events[:, 0])
    return np.maximum(shared, 0.0)


def _found(level: np.ndarray, shared: np.ndarray, events: np.ndarray, levels: int, gtc: float) -> np.ndarray:
    """Return the number of events that relevant detections cover sufficiently at each level."""
    covered = np.zeros((levels, len(events)))
    np.add.at(covered, level, shared)
    needed = np.round(gtc * (events[:, 1] - events[:, 0]), TIME_DECIMALS)
    return (np.round(covered, TIME_DECIMALS) >= needed).sum(axis=1)


def staircase(efpr: np.ndarray, tpr: np.ndarray, max_efpr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the best operating points: the maximum ratio up to each rate, where it increases."""
    order = np.argsort(efpr)
    efpr, best = efpr[order], np.maximum.accumulate(tpr[order])
    last = np.append(efpr[1:] > efpr[:-1], True)  # best point of each rate
    efpr, best = efpr[last], best[last]
    kept = np.append(True, best[1:] > best[:-1]) & (efpr <= max_efpr)
    return efpr[kept], best[kept]


def _overall(curves: list[tuple[np.ndarray, np.ndarray]], alpha_st: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the class curves minus the weighted standard deviation, clipped at 0."""
    efpr = np.unique(np.concatenate([rates for rates, _ in curves]))
    held = np.stack([tpr[np.searchsorted(rates, efpr, side="right") - 1] for rates, tpr in curves])
    return efpr, np.maximum(held.mean(axis=0) - alpha_st * held.std(axis=0), 0.0)


def area(efpr: np.ndarray, tpr: np.ndarray, max_efpr: float) -> float:
    """Return the area under a step curve, divided by `max_efpr`."""
    return float(np.sum(tpr * np.diff(efpr, append=max_efpr)) / max_efpr)
