"""Detection scores of many phrases, compiled.

A curve becomes detection scores by scaling its range to [0, 1]. A constant curve has the score 1 everywhere, so it
detects the whole clip, which is the baseline.
"""

from __future__ import annotations

import numba
import numpy as np

from attnviz.alignment.bootstrap import Bootstrap
from attnviz.alignment.detection import DETECTION, DetectionScores
from attnviz.alignment.streamed.collection import Collection
from attnviz.alignment.streamed.threads import callers_threads

# PSDS1: the criteria of `attnviz.alignment.psds`, without cross-triggers and variance of classes.
_DTC = _GTC = 0.7
_MAX_EFPR = 100.0
_SEGMENT = 1.0
_THRESHOLD = 0.5
_HOUR = 3600.0
_MICROSECONDS = 1e6
_LANES = 16  # resamples that are counted together


@callers_threads()
def detection_of(
    collection: Collection, method: str, numbers: np.ndarray, bootstrap: Bootstrap
) -> DetectionScores:
    """Compute the detection scores of a method for the scored phrases and every resample.

    Parameters
    ----------
    collection : Collection
    method : str
    numbers : numpy.ndarray of int
        Scored phrases, in the order of the bootstrap.
    bootstrap : Bootstrap

    Notes
    -----
    Equal to :func:`attnviz.alignment.psds` and :func:`attnviz.alignment.segment_f1` with default arguments for a
    single class; each draw of a control counts as a separate clip. If both sources and clips are resampled, the
    intervals are conservative: unlike those of means, they cannot be shrunk (see `attnviz.alignment.bootstrap`).
    Every phrase is present in its clip, so false positives in clips without the sound are not measured.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    facts = np.zeros((bootstrap.count, 5))
    known_phrases = 0
    group_of = np.zeros(len(collection), dtype=np.int32)
    group_of[numbers] = bootstrap.groups
    for block in collection.blocks(numbers):
        owner, curves = collection.draws_of(method, block)
        if not len(owner):
            continue
        rows = block[owner]
        known_phrases += len(np.unique(owner))
        groups = group_of[rows]
        steps, segments = _counted(
            np.ascontiguousarray(curves, dtype=np.float64), collection.column_seconds[rows],
            collection.seconds[rows], collection.times, collection.first_time[rows],
            collection.first_time[rows + 1],
        )  # fmt: skip
        row, level, found, wrong = steps
        parts.append((groups[row], level, found, wrong))
        events = collection.first_time[rows + 1] - collection.first_time[rows]
        np.add.at(facts, groups, np.column_stack([events, collection.seconds[rows], segments]))
    if not known_phrases:
        nothing = np.full((bootstrap.n_resamples, len(DETECTION)), np.nan)
        return DetectionScores(np.full(len(DETECTION), np.nan), nothing, 0)
    owner, level, found, wrong = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(-level, kind="stable")
    level = level[order]
    steps_of = (owner[order], found[order], wrong[order], np.append(level[1:] < level[:-1], True))
    del owner, found, wrong, level, order, parts
    once = _scores(np.ones((1, bootstrap.count), dtype=np.uint16), facts, steps_of)[0]
    replicates = [_scores(weights, facts, steps_of) for weights in bootstrap.weights()]
    return DetectionScores(once, np.concatenate(replicates), known_phrases)


def _scores(weights: np.ndarray, facts: np.ndarray, steps: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return PSDS1 and segment F1 for each row of weights, ``(resamples, 2)``."""
    sums = weights @ facts
    groups = -(-len(weights) // _LANES)
    # As `DrawnBootstrap` keeps them: one compiled version for both kinds of bootstrap.
    lanes = np.zeros((groups * _LANES, weights.shape[1]), dtype=np.uint16)
    lanes[: len(weights)] = weights
    lanes = np.ascontiguousarray(lanes.reshape(groups, _LANES, -1).transpose(0, 2, 1))
    limits = np.zeros(groups * _LANES, dtype=np.int32)
    limits[: len(weights)] = np.floor(_MAX_EFPR * sums[:, 1] / _HOUR)
    best = np.zeros((groups, _LANES, int(limits.max()) + 1), dtype=np.int32)
    _best_counts(lanes, *steps, limits.reshape(groups, _LANES), best)
    by_row = best.reshape(groups * _LANES, -1)
    areas = np.array(
        [_area(by_row[row, : limits[row] + 1], sums[row, 0], sums[row, 1]) for row in range(len(weights))]
    )
    true, false, missed = sums[:, 2], sums[:, 3], sums[:, 4]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(true + false > 0, true / (true + false), 1.0)
        recall = true / (true + missed)
        f1 = np.where(true > 0, 2 * precision * recall / (precision + recall), 0.0)
    return np.where(sums[:, :1] > 0, np.column_stack([areas, f1]), np.nan)


def _area(best: np.ndarray, events: float, seconds: float) -> float:
    if not events:
        return float("nan")
    rate = np.arange(len(best)) / seconds * _HOUR
    within = rate <= _MAX_EFPR
    rate, ratio = rate[within], np.maximum.accumulate(best[within]) / events
    return float(np.sum(ratio * np.diff(rate, append=_MAX_EFPR)) / _MAX_EFPR)


@numba.njit(cache=True, parallel=True)
def _best_counts(
    weights: np.ndarray,
    owner: np.ndarray,
    found: np.ndarray,
    wrong: np.ndarray,
    last: np.ndarray,
    limits: np.ndarray,
    best: np.ndarray,
) -> None:
    """Set the number of detected events for numbers of false positives; its running maximum is the curve.

    ``weights`` (groups, units, lanes) are those of resamples; ``limits`` (groups, lanes) the most false positives,
    and ``best`` (groups, lanes, false positives) the result.
    """
    for group in numba.prange(len(weights)):
        of_unit, most, best_of = weights[group], limits[group], best[group]
        hits = np.zeros(_LANES, dtype=np.int32)
        misses = np.zeros(_LANES, dtype=np.int32)
        better = False
        for step in range(len(owner)):
            own = owner[step]
            more, worse = np.int32(found[step]), np.int32(wrong[step])
            if more:
                for lane in range(_LANES):
                    hits[lane] += of_unit[own, lane] * more
            for lane in range(_LANES):
                misses[lane] += of_unit[own, lane] * worse
            # With fewer hits or more false positives than at the threshold before, no maximum changes.
            better = better or bool(more > 0) or bool(worse < 0)
            if better and last[step]:
                better = False
                for lane in range(_LANES):
                    count = misses[lane]
                    if count <= most[lane]:
                        best_of[lane, count] = max(best_of[lane, count], hits[lane])


def _counted(
    curves: np.ndarray,
    column_seconds: np.ndarray,
    seconds: np.ndarray,
    times: np.ndarray,
    first: np.ndarray,
    past: np.ndarray,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the steps of all curves (row, level, change of hits and of false positives), and segment counts."""
    lowest, highest = curves.min(axis=1, keepdims=True), curves.max(axis=1, keepdims=True)
    varied = highest > lowest
    scaled = np.where(varied, (curves - lowest) / np.where(varied, highest - lowest, 1.0), 1.0)
    number = np.zeros(len(curves), dtype=np.int64)
    level = np.empty(scaled.shape)
    found, wrong = np.empty(scaled.shape, dtype=np.int16), np.empty(scaled.shape, dtype=np.int16)
    segments = np.zeros((len(curves), 3))
    _steps(scaled, column_seconds, times, first, past, number, level, found, wrong)
    _segments(scaled, column_seconds, seconds, times, first, past, segments)
    row, column = np.nonzero(np.arange(scaled.shape[1]) < number[:, None])
    return (row, level[row, column], found[row, column], wrong[row, column]), segments


@numba.njit(cache=True)
def _rounded(value: float) -> float:
    """Round to the microsecond as NumPy does."""
    return np.rint(value * _MICROSECONDS) / _MICROSECONDS


@numba.njit(cache=True, parallel=True)
def _steps(
    scaled: np.ndarray,
    column_seconds: np.ndarray,
    times: np.ndarray,
    first: np.ndarray,
    past: np.ndarray,
    number: np.ndarray,
    level: np.ndarray,
    found: np.ndarray,
    wrong: np.ndarray,
) -> None:
    """Count as `psds.clip_steps` does; set the number of steps of each phrase, and the steps.

    Columns are added from the highest level to the lowest, so a detection changes only where one is added: it
    grows, or joins the detections beside it.
    """
    columns = scaled.shape[1]
    for phrase in numba.prange(len(scaled)):
        curve, width = scaled[phrase], column_seconds[phrase]
        events = times[first[phrase] : past[phrase]]
        covered = np.zeros(len(events))
        # The last column of a detection is kept at its first, and the first at its last; -1 is in no detection.
        other_end = np.full(columns, -1)
        false = before_hits = before_wrong = 0
        order = np.argsort(-curve)
        for place in range(columns):
            column = order[place]
            start, end = column, column + 1
            if column > 0 and other_end[column - 1] >= 0:
                start = other_end[column - 1]
                false -= _add_detection(covered, events, start * width, column * width, -1.0)
            if column + 1 < columns and other_end[column + 1] >= 0:
                end = other_end[column + 1] + 1
                false -= _add_detection(covered, events, (column + 1) * width, end * width, -1.0)
            false += _add_detection(covered, events, start * width, end * width, 1.0)
            other_end[column] = column
            other_end[start], other_end[end - 1] = end - 1, start
            if place + 1 < columns and curve[order[place + 1]] == curve[column]:
                continue
            hits = 0
            for event in range(len(events)):
                if _rounded(covered[event]) >= _rounded(_GTC * (events[event, 1] - events[event, 0])):
                    hits += 1
            if hits != before_hits or false != before_wrong:
                step = number[phrase]
                level[phrase, step] = curve[column]
                found[phrase, step], wrong[phrase, step] = hits - before_hits, false - before_wrong
                number[phrase] += 1
                before_hits, before_wrong = hits, false


@numba.njit(cache=True)
def _add_detection(covered: np.ndarray, events: np.ndarray, onset: float, offset: float, sign: float) -> int:
    """Add (1) or remove (-1) the time that a detection covers of each event; return 1 if it is a false positive.

    A false positive covers nothing.
    """
    total = 0.0
    for event in range(len(events)):
        total += max(min(offset, events[event, 1]) - max(onset, events[event, 0]), 0.0)
    if _rounded(total) < _rounded(_DTC * (offset - onset)):
        return 1
    for event in range(len(events)):
        covered[event] += sign * max(min(offset, events[event, 1]) - max(onset, events[event, 0]), 0.0)
    return 0


@numba.njit(cache=True, parallel=True)
def _segments(
    scaled: np.ndarray,
    column_seconds: np.ndarray,
    seconds: np.ndarray,
    times: np.ndarray,
    first: np.ndarray,
    past: np.ndarray,
    segments: np.ndarray,
) -> None:
    """Count true positives, false positives and false negatives as `segments.clip_counts` does."""
    columns = scaled.shape[1]
    for phrase in numba.prange(len(scaled)):
        curve, width = scaled[phrase], column_seconds[phrase]
        begin, end = first[phrase], past[phrase]
        for segment in range(int(np.ceil(seconds[phrase] / _SEGMENT))):
            start_time, end_time = _rounded(segment * _SEGMENT), _rounded((segment + 1) * _SEGMENT)
            present = False
            for event in range(begin, end):
                present = present or (start_time < times[event, 1] and end_time > times[event, 0])
            detected = False
            for column in range(columns):
                left, right = _rounded(column * width), _rounded((column + 1) * width)
                detected = detected or (curve[column] > _THRESHOLD and left < end_time and right > start_time)
            if present and detected:
                segments[phrase, 0] += 1
            elif detected:
                segments[phrase, 1] += 1
            elif present:
                segments[phrase, 2] += 1
