"""Exchanges of maps between clips: every pair of phrase and donor is scored once, in blocks that fit the cache.

The scores are those of `attnviz.alignment.exchange`. All four are dot products of a vector of the phrase and one
of the donor, so a donor is a record of standardized curves and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numba
import numpy as np

from attnviz.alignment.arrays import stretched
from attnviz.alignment.correlation import standardized, unexplained
from attnviz.alignment.exchange import EXCHANGED, exchange_rows
from attnviz.alignment.methods import CONSTANT, REVERSED
from attnviz.alignment.phrases import ACTIVE_SHARE
from attnviz.alignment.ranking import rank
from attnviz.alignment.streamed.collection import Collection
from attnviz.alignment.streamed.scratch import RowFile

_BLOCK = 4096  # phrases, and donors, that are in memory together
_LEAST = 1e-9  # as in `attnviz.alignment.correlation`


def exchanged_of(
    collection: Collection,
    numbers: np.ndarray,
    n_permutations: int,
    folder: Path,
    progress: Callable[[float], object],
) -> dict[str, np.ndarray]:
    """Compute the pooled scores of exchanged maps for every method.

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

    Returns
    -------
    dict of str to numpy.ndarray, shape (n_permutations, 4)
        No rows if there are too few clips.
    """
    clips = np.unique(collection.clips[numbers], return_inverse=True)[1]
    donors = RowFile(folder / "donors", len(numbers), "int32")
    for row in exchange_rows(clips, n_permutations, collection.seed):
        donors.append(row[None])
    methods = [method for method in collection.methods if method != CONSTANT]
    shape = (donors.rows, len(methods), len(EXCHANGED))
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
    means = np.divide(total, number, out=np.full(shape, np.nan), where=number > 0)
    found = {method: means[:, place] for place, method in enumerate(methods)}
    constant = np.full((donors.rows, len(EXCHANGED)), np.nan)
    constant[:, EXCHANGED.index("roc_auc")] = 0.5
    return {method: found.get(method, constant) for method in collection.methods}


class _Donors:
    """Records of all donors on a number of columns: for each method, its standardized curve and ranks.

    A record is, for each method but the reversed map, curve and ranks. After these come, for each method, the norm
    of the ranks (0 if all are equal, -1 if undefined), whether the curve varies, its correlation with the energy,
    and the factor of its residual (0 if there is none).
    """

    def __init__(
        self, collection: Collection, numbers: np.ndarray, columns: int, methods: Sequence[str], path: Path
    ) -> None:
        self.columns = columns
        self.methods = list(methods)
        self.stored = [method for method in methods if method != REVERSED]
        width = 2 * len(self.stored) * columns + 4 * len(methods)
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
        for method in self.methods:
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
    stored = np.array(
        [donors.stored.index("map" if method == REVERSED else method) for method in donors.methods], dtype=np.int64
    )
    level = donors.stored.index("energy")
    for place in range(len(bounds) - 1):
        pairs = order[bounds[place] : bounds[place + 1]]
        if not len(pairs):
            continue
        records = donors.file.read(place * _BLOCK, (place + 1) * _BLOCK)
        _add_pairs(
            vectors, known, positives, records, pairs // drawn.shape[1], pairs % drawn.shape[1],
            flat[pairs] - place * _BLOCK, stored, level, reversed_at, len(donors.stored), total, number,
        )  # fmt: skip


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(first: np.ndarray, second: np.ndarray) -> float:
    total = np.float32(0.0)
    for column in range(len(first)):
        total += first[column] * second[column]
    return total


@numba.njit(cache=True)
def _add_pairs(
    vectors: np.ndarray,
    known: np.ndarray,
    positives: np.ndarray,
    records: np.ndarray,
    permutation: np.ndarray,
    recipient: np.ndarray,
    donor: np.ndarray,
    stored: np.ndarray,
    level: int,
    reversed_at: int,
    n_stored: int,
    total: np.ndarray,
    number: np.ndarray,
) -> None:
    """Add ROC-AUC, Pearson, Spearman and partial correlation of pairs to the sums of their permutations."""
    columns = vectors.shape[2]
    first_fact = 2 * n_stored * columns
    for pair in range(len(permutation)):
        row, phrase = permutation[pair], recipient[pair]
        record = records[donor[pair]]
        energy = record[2 * level * columns : (2 * level + 1) * columns]
        unexplained_energy = _dot(vectors[phrase, 3], energy)
        hits = positives[phrase]
        for method in range(len(stored)):
            facts = record[first_fact + 4 * method : first_fact + 4 * method + 4]
            if facts[0] < 0:  # undefined
                continue
            turned = 4 if method == reversed_at else 0
            begin = 2 * stored[method] * columns
            curve, ranks = record[begin : begin + columns], record[begin + columns : begin + 2 * columns]
            mixed = hits * (columns - hits)
            if mixed > 0:
                sums = hits * (columns + 1) / 2 + facts[0] * _dot(vectors[phrase, turned], ranks)
                total[row, method, 0] += (sums - hits * (hits + 1) / 2) / mixed
                number[row, method, 0] += 1
            if facts[1] > 0:
                if known[phrase, 1]:
                    total[row, method, 1] += _dot(vectors[phrase, turned + 1], curve)
                    number[row, method, 1] += 1
                if known[phrase, 2]:
                    total[row, method, 2] += _dot(vectors[phrase, turned + 2], ranks)
                    number[row, method, 2] += 1
                if facts[3] > 0 and known[phrase, 3]:
                    left = _dot(vectors[phrase, turned + 3], curve) - facts[2] * unexplained_energy
                    total[row, method, 3] += left * facts[3]
                    number[row, method, 3] += 1
