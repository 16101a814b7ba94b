"""Exchanges of maps between clips: every pair of phrase and donor is scored once, in blocks that fit the cache.

The scores are those of `attnviz.alignment.exchange`. All four are dot products of a vector of the phrase and one
of the donor, so a donor is a record of standardized curves and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numba
import numpy as np

from attnviz.alignment.arrays import stretched
from attnviz.alignment.correlation import standardized, unexplained
from attnviz.alignment.exchange import EXCHANGED, exchange_rows
from attnviz.alignment.methods import CONSTANT, REVERSED
from attnviz.alignment.phrases import ACTIVE_SHARE
from attnviz.alignment.ranking import rank
from attnviz.alignment.reading import ENERGY, MAP
from attnviz.alignment.streamed.collection import Collection
from attnviz.alignment.streamed.scratch import RowFile
from attnviz.alignment.streamed.threads import callers_threads

_BLOCK = 2048  # phrases, and donors, that are in memory together: about what the cache holds
_FAST = {"reassoc", "contract", "nsz"}  # sums of products in any order; NaN keeps its meaning
_PARTS = 8  # of pairs, which threads share
_LEAST = 1e-9  # as in `attnviz.alignment.correlation`


@callers_threads()
def exchanged_of(
    collection: Collection,
    numbers: np.ndarray,
    n_permutations: int,
    folder: Path,
    progress: Callable[[float], object],
    but: Container[str] = (),
) -> dict[str, np.ndarray]:
    """Compute the pooled scores of exchanged maps for every method.

    The score of a donor with several draws is the mean over them.

    Parameters
    ----------
    collection : Collection
    numbers : numpy.ndarray of int
        Scored phrases.
    n_permutations : int
    folder : pathlib.Path
        For scratch files.
    progress : callable
        Called with the share that is done.
    but : collection of str
        Methods to leave out.

    Returns
    -------
    dict of str to numpy.ndarray, shape (n_permutations, 4)
        No rows if there are too few clips.
    """
    clips = np.unique(collection.clips[numbers], return_inverse=True)[1]
    donors = RowFile(folder / "donors", len(numbers), "int32")
    for row in exchange_rows(clips, n_permutations, collection.seed):
        donors.append(row[None])
    methods = [method for method in collection.methods if method != CONSTANT and method not in but]
    shape = (_PARTS, donors.rows, len(methods), len(EXCHANGED))
    total, number = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    done = 0
    for columns in np.unique(collection.columns[numbers]) if donors.rows else ():
        alike = np.flatnonzero(collection.columns[numbers] == columns)
        records = _Donors(collection, numbers, int(columns), methods, folder / f"records-{columns}")
        for start in range(0, len(alike), _BLOCK):
            # Positions among the scored phrases; they ascend, and so do the columns that are read.
            rows = alike[start : start + _BLOCK]
            own = _recipients(collection, numbers[rows], int(columns))
            drawn = donors.columns(int(rows[0]), int(rows[-1]) + 1)[:, rows - rows[0]]
            _score(own, records, drawn, total, number)
            done += len(rows)
            progress(done / len(numbers))
        records.file.path.unlink()
    donors.path.unlink()
    total, number = total.sum(axis=0), number.sum(axis=0)
    means = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    found = {method: means[:, place] for place, method in enumerate(methods)}
    constant = np.full((donors.rows, len(EXCHANGED)), np.nan)
    constant[:, EXCHANGED.index("roc_auc")] = 0.5
    return {method: found.get(method, constant) for method in collection.methods if method not in but}


class _Donors:
    """Records of all donors on a number of columns: for each method, its standardized curve and ranks.

    A record is, for each method but the reversed map, curve and ranks; for a method of several draws, these are
    means over the draws, followed by the means of the ranks that are not standardized, and of the residuals. After
    these come, for each method, the norm of the ranks (0 if all are equal, -1 if undefined), whether the curve
    varies, its correlation with the energy, and the factor of its residual (0 if there is none).
    """

    def __init__(
        self, collection: Collection, numbers: np.ndarray, columns: int, methods: Sequence[str], path: Path
    ) -> None:
        self.columns = columns
        self.methods = list(methods)
        self.several = np.array([method in collection.given for method in methods])
        self.begins = np.zeros(len(methods), dtype=np.int64)
        place = 0
        for number, method in enumerate(methods):
            if method != REVERSED:
                self.begins[number] = place
                place += (4 if self.several[number] else 2) * columns
        if REVERSED in self.methods:
            self.begins[self.methods.index(REVERSED)] = self.begins[self.methods.index(MAP)]
        self.first_fact = place
        width = place + 4 * len(methods)
        self.file = RowFile(path, width, "float32")
        self.count = len(numbers)
        for start in range(0, len(numbers), _BLOCK):
            part = numbers[start : start + _BLOCK]
            rows = np.empty((len(part), width), dtype=np.float32)
            for alike in collection.blocks(part):
                # The curve of a donor is made on its own columns and then resampled, as its energy is.
                rows[np.searchsorted(part, alike)] = self._records(collection, alike)
            self.file.append(rows)

    def _records(self, collection: Collection, numbers: np.ndarray) -> np.ndarray:
        energy = collection.envelope(numbers, self.columns)
        level, known_level = standardized(energy), ~np.isnan(energy).any(axis=1)
        vectors, facts = [], []
        for method, several in zip(self.methods, self.several, strict=True):
            if several:
                owner, draws = collection.draws_of(method, numbers)
                own, known = _mean_draws(stretched(draws, self.columns), owner, level, known_level)
                vectors += own
                facts += known
                continue
            curves = stretched(collection.of_method(method, numbers), self.columns)
            known = ~np.isnan(curves).any(axis=1)
            ranks = rank(curves).ranks
            centred = ranks - ranks.mean(axis=1, keepdims=True)
            norm = np.where(known, np.sqrt(np.einsum("ij,ij->i", centred, centred)), -1.0)
            curve = standardized(curves)
            varied = known & ~np.isnan(curve).any(axis=1)
            explained = np.clip(np.einsum("ij,ij->i", curve, np.nan_to_num(level)), -1.0, 1.0)
            left = 1 - explained**2
            factor = np.where(known_level & varied & (left > _LEAST), 1 / np.sqrt(np.maximum(left, _LEAST)), 0.0)
            facts += [norm, varied, np.nan_to_num(explained), factor]
            if method != REVERSED:
                vectors += [np.nan_to_num(curve), np.nan_to_num(standardized(ranks))]
        return np.hstack([*vectors, np.column_stack(facts)])


def _mean_draws(
    curves: np.ndarray, owner: np.ndarray, level: np.ndarray, known_level: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the vectors and facts of donors with several draws: every score is linear in the vector of a draw."""
    ranks = rank(curves).ranks
    curve, order = standardized(curves), standardized(ranks)
    residual = np.where(known_level[owner, None], unexplained(curve, level[owner]), np.nan)
    means, defined = [], []
    for rows in (curve, order, ranks - ranks.mean(axis=1, keepdims=True), residual):
        known = ~np.isnan(rows).any(axis=1)
        total, number = np.zeros((len(level), curves.shape[1])), np.zeros((len(level), 1))
        np.add.at(total, owner[known], rows[known])
        np.add.at(number, owner[known], 1)
        means.append(total / np.maximum(number, 1))
        defined.append(number[:, 0] > 0)
    return means, [np.where(defined[2], 1.0, -1.0), defined[0], np.zeros(len(level)), defined[3]]


def _recipients(collection: Collection, numbers: np.ndarray, columns: int) -> np.ndarray:
    """Return the vectors of phrases, ``(phrases, 8, columns)``: activity, shares, their ranks and residuals.

    And the same reversed in time: a reversed map against a phrase is the map against the reversed phrase.
    """
    shares = collection.share(numbers, columns)
    energy = collection.envelope(numbers, columns)
    share = standardized(shares)
    known = ~np.isnan(energy).any(axis=1, keepdims=True)
    left = np.where(known, unexplained(share, standardized(energy)), np.nan)
    vectors = [(shares >= ACTIVE_SHARE).astype(np.float64), share, standardized(rank(shares).ranks), left]
    stacked = np.stack([*vectors, *(one[:, ::-1] for one in vectors)], axis=1)
    return stacked.astype(np.float32)


def _score(own: np.ndarray, donors: _Donors, drawn: np.ndarray, total: np.ndarray, number: np.ndarray) -> None:
    """Add the scores of all pairs of some phrases with their donors, ``drawn`` (permutations, phrases)."""
    known = ~np.isnan(own).any(axis=2)  # a constant share, or no energy
    positives = own[:, 0].sum(axis=1)
    vectors = np.nan_to_num(own)
    block = (drawn.ravel() // _BLOCK).astype(np.int16)
    order = np.argsort(block, kind="stable")
    bounds = np.searchsorted(block[order], np.arange(int(block.max()) + 2))
    flat = drawn.ravel()
    reversed_at = donors.methods.index(REVERSED) if REVERSED in donors.methods else -1
    level = int(donors.begins[donors.methods.index(ENERGY)])
    for place in range(len(bounds) - 1):
        pairs = order[bounds[place] : bounds[place + 1]]
        if not len(pairs):
            continue
        records = donors.file.read(place * _BLOCK, (place + 1) * _BLOCK)
        # By donor, so that each record is read once from memory.
        pairs = pairs[np.argsort((flat[pairs] - place * _BLOCK).astype(np.int16), kind="stable")]
        _add_pairs(
            vectors, known, positives, records, pairs // drawn.shape[1], pairs % drawn.shape[1],
            flat[pairs] - place * _BLOCK, donors.begins, donors.several, level, reversed_at, donors.first_fact,
            total, number,
        )  # fmt: skip


@numba.njit(cache=True, fastmath=_FAST)
def _dots(
    active: np.ndarray,
    share: np.ndarray,
    ranks: np.ndarray,
    left: np.ndarray,
    curve: np.ndarray,
    order: np.ndarray,
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return activity and share ranks against the ranks of a curve, shares and residuals against the curve."""
    first = second = third = fourth = np.float32(0.0)
    for column in range(len(curve)):
        first += active[column] * order[column]
        second += share[column] * curve[column]
        third += ranks[column] * order[column]
        fourth += left[column] * curve[column]
    return first, second, third, fourth


@numba.njit(cache=True, fastmath=_FAST)
def _dot(first: np.ndarray, second: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for column in range(len(first)):
        total += first[column] * second[column]
    return total


@numba.njit(cache=True, parallel=True, fastmath=_FAST)
def _add_pairs(
    vectors: np.ndarray,
    known: np.ndarray,
    positives: np.ndarray,
    records: np.ndarray,
    permutation: np.ndarray,
    recipient: np.ndarray,
    donor: np.ndarray,
    begins: np.ndarray,
    several: np.ndarray,
    level: int,
    reversed_at: int,
    first_fact: int,
    total: np.ndarray,
    number: np.ndarray,
) -> None:
    """Add ROC-AUC, Pearson, Spearman and partial correlation of pairs to the sums of their permutations.

    Each part of the pairs has sums of its own, ``(parts, permutations, methods, scores)``, whatever the threads.
    """
    columns = vectors.shape[2]
    parts = len(total)
    for part in numba.prange(parts):
        for pair in range(len(permutation) * part // parts, len(permutation) * (part + 1) // parts):
            row, phrase = permutation[pair], recipient[pair]
            record, own = records[donor[pair]], vectors[phrase]
            hits = positives[phrase]
            mixed = hits * (columns - hits)
            unexplained_energy = _dot(own[3], record[level : level + columns])
            for method in range(len(begins)):
                fact = first_fact + 4 * method
                if record[fact] < 0:  # undefined
                    continue
                first = 4 if method == reversed_at else 0
                begin = begins[method]
                curve, order = record[begin : begin + columns], record[begin + columns : begin + 2 * columns]
                if several[method]:
                    active = _dot(own[0], record[begin + 2 * columns : begin + 3 * columns])
                    share, ranks = _dot(own[1], curve), _dot(own[2], order)
                    left = _dot(own[3], record[begin + 3 * columns : begin + 4 * columns])
                else:
                    active, share, ranks, left = _dots(
                        own[first], own[first + 1], own[first + 2], own[first + 3], curve, order
                    )
                if mixed > 0:
                    sums = hits * (columns + 1) / 2 + record[fact] * active
                    total[part, row, method, 0] += (sums - hits * (hits + 1) / 2) / mixed
                    number[part, row, method, 0] += 1
                if record[fact + 1] > 0:
                    if known[phrase, 1]:
                        total[part, row, method, 1] += share
                        number[part, row, method, 1] += 1
                    if known[phrase, 2]:
                        total[part, row, method, 2] += ranks
                        number[part, row, method, 2] += 1
                    if record[fact + 3] > 0 and known[phrase, 3]:
                        total[part, row, method, 3] += (left - record[fact + 2] * unexplained_energy) * record[
                            fact + 3
                        ]
                        number[part, row, method, 3] += 1
