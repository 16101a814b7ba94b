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

from collections.abc import Iterator

import numpy as np

from attnviz.alignment.bootstrap import CONFIDENCE
from attnviz.alignment.scoring import SCORES

EXCHANGED = ("roc_auc", "pearson", "spearman", "partial")
"""Scores with a permutation interval, which are those with a known chance level."""

FEWEST_CLIPS = 5
"""Minimum number of clips; fewer have too few exchanges (24 for four clips) for a 95 % interval."""

FEWEST_SEEDS = 6
"""Minimum number of seeds; fewer have too few sign patterns (32 for five seeds)."""


def exchange_rows(codes: np.ndarray, n_permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the donor of each phrase, ``(phrases,)`` int32, for one permutation after the other.

    Clips are permuted uniformly. Phrase `k` of a clip receives the map of phrase `k` of the donor clip, modulo the
    number of its phrases. Nothing is yielded below `FEWEST_CLIPS` clips.

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
