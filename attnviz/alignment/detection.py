"""PSDS1 and segment F1 of a pool of phrases, where each phrase is treated as a clip with one class.

A curve becomes detection scores by scaling its range to [0, 1]. A constant curve has the score 1 everywhere, so it
detects the whole clip, which is the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.alignment.bootstrap import Bootstrap
from attnviz.alignment.phrases import AlignedPhrase, Draws
from attnviz.alignment.psds import Criteria, area, clip_steps, staircase
from attnviz.alignment.scored_clips import ScoredClip
from attnviz.alignment.segments import clip_counts, ratios

DETECTION = ("psds1", "segment_f1")
"""Scores that are defined for a whole pool."""

_PSDS1 = Criteria(dtc=0.7, gtc=0.7, cttc=None, alpha_ct=0.0)
_MAX_EFPR = 100.0
_SEGMENT = 1.0
_THRESHOLD = 0.5
_HOUR = 3600.0


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """Detection scores of a pool and of every bootstrap resample.

    Attributes
    ----------
    values : numpy.ndarray, shape (2,)
        In the order of `DETECTION`; NaN if there are no phrases.
    replicates : numpy.ndarray, shape (n_resamples, 2)
    phrases : int
        Number of scored phrases.
    """

    values: np.ndarray
    replicates: np.ndarray
    phrases: int


def detection_scores(
    phrases: Sequence[AlignedPhrase], curves: Sequence[Draws], bootstrap: Bootstrap
) -> DetectionScores:
    """Compute the detection scores of the curves of one method.

    Parameters
    ----------
    phrases : sequence of AlignedPhrase
        Phrases that can be scored.
    curves : sequence of tuple of numpy.ndarray
        Their curves of one method. Each draw counts as a separate clip.
    bootstrap : Bootstrap
        Resamples of these phrases.

    Notes
    -----
    Equal to :func:`attnviz.alignment.psds` and :func:`attnviz.alignment.segment_f1` with default arguments for a
    single class. If both sources and clips are resampled, the intervals are conservative: unlike those of means,
    they cannot be shrunk (see `attnviz.alignment.bootstrap`). Every phrase is present in its clip, so false
    positives in clips without the sound are not measured.
    """
    clips = [
        (_clip(phrase, draw), bootstrap.groups[number])
        for number, (phrase, draws) in enumerate(zip(phrases, curves, strict=True))
        for draw in draws
    ]
    if not clips:
        nothing = np.full((bootstrap.n_resamples, len(DETECTION)), np.nan)
        return DetectionScores(np.full(len(DETECTION), np.nan), nothing, 0)
    pool = _Pool(clips)
    once = np.ones(bootstrap.count, dtype=np.int64)
    replicates = [pool.scores(weights) for chunk in bootstrap.weights() for weights in chunk]
    scored = sum(1 for draws in curves if draws)
    return DetectionScores(np.array(pool.scores(once)), np.array(replicates).reshape(-1, len(DETECTION)), scored)


def _clip(phrase: AlignedPhrase, curve: np.ndarray) -> ScoredClip:
    lowest, highest = curve.min(), curve.max()
    scaled = (curve - lowest) / (highest - lowest) if highest > lowest else np.ones(len(curve))
    edges = np.arange(len(curve) + 1) * phrase.column_seconds
    return ScoredClip(phrase.seconds, scaled[:, None].astype(np.float64), edges, (phrase.events.times,))


class _Pool:
    """Counts of all clips, weighted by their units."""

    def __init__(self, clips: Sequence[tuple[ScoredClip, int]]) -> None:
        steps = [clip_steps(clip, 0, [], _PSDS1) for clip, _ in clips]
        unit = np.array([unit for _, unit in clips])
        order = np.argsort(np.concatenate([-level for level, _ in steps]), kind="stable")
        levels = np.concatenate([level for level, _ in steps])[order]
        self.ends = np.flatnonzero(np.append(levels[1:] < levels[:-1], True))  # last of equal levels
        self.changes = np.concatenate([change for _, change in steps])[order]
        self.owner = np.repeat(unit, [len(level) for level, _ in steps])[order]
        self.unit = unit
        self.facts = np.array([[len(clip.events[0]), clip.seconds] for clip, _ in clips])
        self.segments = np.concatenate([clip_counts(clip, _SEGMENT, _THRESHOLD) for clip, _ in clips])

    def scores(self, weights: np.ndarray) -> tuple[float, float]:
        """Return PSDS1 and segment F1 with the given weight of each unit."""
        events, seconds = weights[self.unit] @ self.facts
        if not events:  # no phrase of the resample has a curve of this method
            return float("nan"), float("nan")
        true, false, missed = (int(count) for count in weights[self.unit] @ self.segments)
        found, wrong = np.cumsum(self.changes * weights[self.owner, None], axis=0)[self.ends].T
        # Maximum number of detected events for each number of false positives.
        within = wrong <= _MAX_EFPR * seconds / _HOUR
        best = np.zeros(int(wrong[within].max(initial=0)) + 1)
        np.maximum.at(best, wrong[within], found[within])
        efpr = np.arange(len(best)) / seconds * _HOUR
        return area(*staircase(efpr, best / events, _MAX_EFPR), _MAX_EFPR), ratios(true, false, missed)[2]
