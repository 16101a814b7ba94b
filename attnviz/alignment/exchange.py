"""Permutation tests: exchange the maps of whole clips between the clips of a pool.

Permutations within a clip are not valid. Exchanging its words fails if the caption determines their order ("X,
then Y": the other word's map is that of the other sound). Circular shifts of a map assume that clips are
stationary, which is violated by sounds at the start of a clip, fade-outs, sounds that exceed the clip, edge
effects of the maps, and long events in ten seconds (which leave only a few distinct shifts).

Exchanging clips is valid: if words and sounds were unrelated, the maps of one clip would fit another equally well.
Clips are exchanged as a whole, because the maps of the words of a clip are similar. Properties that maps and
sounds share in every clip (such as a loud middle) remain, and shift the mean of the exchanged scores away from
chance. For the partial correlation, the residuals given the energy of the map's own clip are exchanged.

If there are too few clips, a control of several maps (seeds of randomized weights) can still be tested. Under
chance, the score of a seed is distributed symmetrically around the chance level, so the signs of the distances are
flipped. This tests the mean over seeds on these clips only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.alignment.arrays import stretched
from attnviz.alignment.bootstrap import CONFIDENCE
from attnviz.alignment.correlation import standardized, unexplained
from attnviz.alignment.phrases import AlignedPhrase, Draws
from attnviz.alignment.ranking import auc_of_sums, rank
from attnviz.alignment.scoring import SCORES

EXCHANGED = ("roc_auc", "pearson", "spearman", "partial")
"""Scores with a permutation interval, which are those with a known chance level."""

FEWEST_CLIPS = 5
"""Minimum number of clips; fewer have too few exchanges (24 for four clips) for a 95 % interval."""

FEWEST_SEEDS = 6
"""Minimum number of seeds; fewer have too few sign patterns (32 for five seeds)."""

_RECIPIENTS = 256  # number of phrases scored against all donors at once


def draw_exchanges(clips: Sequence[str], n_permutations: int, seed: int) -> np.ndarray:
    """Draw the donor of each phrase, ``(n_permutations, phrases)``; no rows below `FEWEST_CLIPS` clips.

    Clips are permuted uniformly. Phrase `k` of a clip receives the map of phrase `k` of the donor clip, modulo the
    number of its phrases.
    """
    _, codes = np.unique(np.asarray(clips), return_inverse=True)
    rows = list(exchange_rows(codes, n_permutations, seed))
    return np.stack(rows) if rows else np.empty((0, len(codes)), dtype=np.int32)


def exchange_rows(codes: np.ndarray, n_permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the donor of each phrase, ``(phrases,)`` int32, for one permutation after the other.

    Parameters
    ----------
    codes : numpy.ndarray of int, shape (phrases,)
        Number of the clip of each phrase, from 0, in the order of their names.
    n_permutations, seed : int
    """
    count = int(codes.max()) + 1 if len(codes) else 0
    if count < FEWEST_CLIPS:
        return
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(count))
    sizes = np.bincount(codes)
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes)) - starts[codes[order]]
    rng = np.random.default_rng(seed)
    for _ in range(n_permutations):
        donor = rng.permutation(count)[codes]
        yield order[starts[donor] + place % sizes[donor]].astype(np.int32)


def exchanged_means(phrases: Sequence[AlignedPhrase], curves: Sequence[Draws], donors: np.ndarray) -> np.ndarray:
    """Compute the pooled scores of exchanged maps.

    Parameters
    ----------
    phrases : sequence of AlignedPhrase
        Phrases that can be scored.
    curves : sequence of tuple of numpy.ndarray
        Their curves of one method. The score of a phrase is the mean over the draws of its donor.
    donors : numpy.ndarray of int, shape (n_permutations, phrases)

    Returns
    -------
    numpy.ndarray, shape (n_permutations, 4)
        In the order of `EXCHANGED`; NaN if undefined.
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
    """Return mean distances from chance with random signs of the seeds.

    Parameters
    ----------
    by_seed : numpy.ndarray, shape (seeds, 4)
        Pooled scores of each map of a control, in the order of `EXCHANGED`.
    n_permutations, seed : int

    Returns
    -------
    numpy.ndarray, shape (n_permutations, 4)
        No rows if there are fewer than `FEWEST_SEEDS` seeds.
    """
    if len(by_seed) < FEWEST_SEEDS:
        return np.empty((0, len(EXCHANGED)))
    distances = by_seed - [SCORES[score].chance for score in EXCHANGED]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations, len(by_seed)))
    return np.asarray(signs @ distances / len(by_seed))


def permutation_interval(value: float, permuted: np.ndarray) -> tuple[float, float]:
    """Return the permutation interval of a pooled score.

    The interval contains the chance levels that are compatible with the score, given the spread of permuted scores
    around their mean; "at chance" means that it contains the chance level. Its ends may exceed the range of the
    score. `attnviz.alignment.pooling` clips them, which excludes no possible chance level.

    Parameters
    ----------
    value : float
        Pooled score.
    permuted : numpy.ndarray, shape (n_permutations,)
        Permuted pooled scores, or permuted distances from chance.
    """
    known = permuted[~np.isnan(permuted)]
    if not known.size or np.isnan(value):
        return float("nan"), float("nan")
    share = (1 - CONFIDENCE) / 2
    below, above = np.quantile(known - known.mean(), [share, 1 - share])
    return float(value - above), float(value - below)


@dataclass(frozen=True)
class _Donors:
    """Draws of all phrases resampled to the same columns, each ``(draws, columns)``, and their owners."""

    owner: np.ndarray
    ranks: np.ndarray
    curves: np.ndarray
    unexplained: np.ndarray


def _donors(phrases: Sequence[AlignedPhrase], curves: Sequence[Draws], length: int) -> _Donors:
    """Resample all draws to `length` columns. A phrase without a curve has a curve of NaN."""
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
        # Given the energy of the own clip: only the residuals are exchanged.
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
    """Return the mean of ``(phrases, draws)`` over the draws of each owner; NaN if none is defined."""
    if len(owner) == count:
        return scores
    starts = np.searchsorted(owner, np.arange(count))
    number = np.add.reduceat((~np.isnan(scores)).astype(np.float64), starts, axis=1)
    total = np.add.reduceat(np.nan_to_num(scores), starts, axis=1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
