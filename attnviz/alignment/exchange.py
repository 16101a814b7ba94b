"""What chance would score: the maps of whole clips exchanged between the clips of a pool.

Within a clip nothing may be permuted. Exchanging its words is wrong where the caption orders them ("X, then Y":
the other word's map is that of the other sound). Shifting a map in a circle supposes that every moment of a clip
is like every other, and its end like its beginning: sounds that start the clip, fade out or outlast it, the edges
of the maps, and one long event in ten seconds (which leaves a handful of different shifts) say otherwise.

Between clips it may: if words had nothing to do with sounds, the maps of one clip would be as good for another.
Clips are exchanged whole, because the maps of one clip's words resemble each other; what maps and sounds have in
common in every clip (a loud middle, say) stays, and shows as a mean of the exchanged scores away from chance. For
the partial correlation, what a map's own clip's energy leaves of it is exchanged.

With too few clips for that, a control of several maps (seeds of randomized weights) can still be judged: at
chance, a seed scores above that level as likely as below it by as much, so the signs of the seeds' distances from
it are flipped. That asks whether chance is right on the average over seeds, on these clips alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.alignment.arrays import stretched
from attnviz.alignment.bootstrap import CONFIDENCE
from attnviz.alignment.correlation import standardized, unexplained
from attnviz.alignment.phrases import AlignedPhrase, Draws
from attnviz.alignment.ranking import auc_of_sums, rank
from attnviz.alignment.scoring import SCORES

EXCHANGED = ("roc_auc", "pearson", "spearman", "partial")
"""Scores with a permutation interval: those whose level of chance is known beforehand."""

FEWEST_CLIPS = 5
"""Below it there are too few exchanges (24 of four clips) for the ends of a 95 % interval."""

FEWEST_SEEDS = 6
"""Below it there are too few patterns of signs (32 of five seeds)."""

_RECIPIENTS = 256  # scored against all donors at once


def draw_exchanges(clips: Sequence[str], n_permutations: int, seed: int) -> np.ndarray:
    """Draw which phrase's map each phrase gets, ``(n_permutations, phrases)``; no rows below `FEWEST_CLIPS` clips.

    The clips are permuted evenly; phrase `k` of a clip gets the map of its donor's phrase `k`, counted round
    where the donor has fewer.
    """
    _, codes = np.unique(np.asarray(clips), return_inverse=True)
    count = int(codes.max()) + 1 if len(codes) else 0
    if count < FEWEST_CLIPS:
        return np.empty((0, len(codes)), dtype=np.int32)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(count))
    sizes = np.bincount(codes)
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes)) - starts[codes[order]]
    rng = np.random.default_rng(seed)
    donors = np.empty((n_permutations, len(codes)), dtype=np.int32)
    for row in donors:
        donor = rng.permutation(count)[codes]
        row[:] = order[starts[donor] + place % sizes[donor]]
    return donors


def exchanged_means(phrases: Sequence[AlignedPhrase], curves: Sequence[Draws], donors: np.ndarray) -> np.ndarray:
    """Return the pooled scores of exchanged maps.

    Parameters
    ----------
    phrases : sequence of AlignedPhrase
        Those that can be scored.
    curves : sequence of tuple of numpy.ndarray
        Their curves of one method; a phrase's score is the mean over its donor's draws.
    donors : numpy.ndarray of int, shape (n_permutations, phrases)

    Returns
    -------
    numpy.ndarray, shape (n_permutations, 4)
        In the order of `EXCHANGED`; NaN where nothing is defined.
    """
    total, number = (np.zeros((len(donors), len(EXCHANGED))) for _ in range(2))
    lengths = np.array([len(phrase.share) for phrase in phrases], dtype=int)
    for length in np.unique(lengths) if len(donors) else ():
        alike = np.flatnonzero(lengths == length)
        pool = _donors(phrases, curves, int(length))
        for start in range(0, len(alike), _RECIPIENTS):
            rows = alike[start : start + _RECIPIENTS]
            pairs = _pairs([phrases[row] for row in rows], pool)
            for column, scores in enumerate(pairs):
                picked = _mean_draws(scores, pool.owner, len(curves))[np.arange(len(rows)), donors[:, rows]]
                total[:, column] += np.nansum(picked, axis=1)
                number[:, column] += np.count_nonzero(~np.isnan(picked), axis=1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def flipped_means(by_seed: np.ndarray, n_permutations: int, seed: int) -> np.ndarray:
    """Return mean distances from chance, the sign of each seed's drawn anew.

    Parameters
    ----------
    by_seed : numpy.ndarray, shape (seeds, 4)
        Pooled scores of each map of a control, in the order of `EXCHANGED`.
    n_permutations, seed : int

    Returns
    -------
    numpy.ndarray, shape (n_permutations, 4)
        No rows below `FEWEST_SEEDS`.
    """
    if len(by_seed) < FEWEST_SEEDS:
        return np.empty((0, len(EXCHANGED)))
    distances = by_seed - [SCORES[score].chance for score in EXCHANGED]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations, len(by_seed)))
    return np.asarray(signs @ distances / len(by_seed))


def permutation_interval(value: float, permuted: np.ndarray) -> tuple[float, float]:
    """Return the interval around a pooled score that permuting allows.

    A level inside it would, with the spread that permuted scores show around their mean, give such a score by
    chance; so "at chance" means that the level of chance lies inside. Its ends may lie beyond what a score can be;
    `attnviz.alignment.pooling` cuts them there, which moves no level of chance out of it.

    Parameters
    ----------
    value : float
        Pooled score.
    permuted : numpy.ndarray, shape (n_permutations,)
        Pooled scores, or their distances from chance, permuted.
    """
    known = permuted[~np.isnan(permuted)]
    if not known.size or np.isnan(value):
        return float("nan"), float("nan")
    share = (1 - CONFIDENCE) / 2
    below, above = np.quantile(known - known.mean(), [share, 1 - share])
    return float(value - above), float(value - below)


@dataclass(frozen=True)
class _Donors:
    """All draws of all phrases on one number of columns, each ``(draws, columns)``, and whose they are."""

    owner: np.ndarray
    ranks: np.ndarray
    curves: np.ndarray
    unexplained: np.ndarray


def _donors(phrases: Sequence[AlignedPhrase], curves: Sequence[Draws], length: int) -> _Donors:
    """Bring all draws to `length` columns; a phrase without a curve has one of NaN."""
    nothing = (np.full(length, np.nan),)
    owner = np.repeat(np.arange(len(curves)), [len(draws) or 1 for draws in curves])
    flat = [stretched(draw, length) for draws in curves for draw in (draws or nothing)]
    stacked = np.stack(flat).astype(np.float64)
    known = ~np.isnan(stacked).any(axis=1, keepdims=True)
    levels = _energies(phrases, length)[owner]
    curve = standardized(stacked)
    return _Donors(
        owner=owner,
        ranks=np.where(known, rank(stacked).ranks, np.nan),
        curves=curve,
        # Of its own clip's energy: only what is left of it is exchanged.
        unexplained=_left_over(curve, levels),
    )


def _energies(phrases: Sequence[AlignedPhrase], length: int) -> np.ndarray:
    unknown = np.full(length, np.nan)
    return np.stack([unknown if phrase.energy is None else stretched(phrase.energy, length) for phrase in phrases])


def _left_over(rows: np.ndarray, energy: np.ndarray) -> np.ndarray:
    known = ~np.isnan(energy).any(axis=1, keepdims=True)
    return np.where(known, unexplained(rows, standardized(energy)), np.nan)


def _pairs(phrases: Sequence[AlignedPhrase], donors: _Donors) -> list[np.ndarray]:
    """Return the score of every draw for every phrase, ``(phrases, draws)``, in the order of `EXCHANGED`."""
    shares = np.stack([phrase.share for phrase in phrases])
    active = np.stack([phrase.active for phrase in phrases]).astype(np.float64)
    columns = shares.shape[1]
    positives = active.sum(axis=1)[:, None] + np.zeros(len(donors.owner))
    share = standardized(shares)
    return [
        auc_of_sums(active @ donors.ranks.T, positives, columns),
        share @ donors.curves.T,
        standardized(rank(shares).ranks) @ standardized(donors.ranks).T,
        _left_over(share, _energies(phrases, columns)) @ donors.unexplained.T,
    ]


def _mean_draws(scores: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Return the mean over each owner's draws of ``(phrases, draws)``; NaN where none is defined."""
    if len(owner) == count:
        return scores
    starts = np.searchsorted(owner, np.arange(count))
    number = np.add.reduceat((~np.isnan(scores)).astype(np.float64), starts, axis=1)
    total = np.add.reduceat(np.nan_to_num(scores), starts, axis=1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
