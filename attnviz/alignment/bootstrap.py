"""Intervals by bootstrap over source recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of units, whole: all phrases of a source recording are drawn together, or none.

    Parameters
    ----------
    units : numpy.ndarray of int, shape (phrases,)
        Unit of each phrase, from 0.
    n_resamples : int
    seed : int
    """

    units: np.ndarray
    n_resamples: int
    seed: int

    @property
    def count(self) -> int:
        """Number of units."""
        return int(self.units.max()) + 1 if len(self.units) else 0

    def weights(self) -> Iterator[np.ndarray]:
        """Yield how often each unit is drawn, ``(resamples, units)``, some resamples at a time."""
        rng = np.random.default_rng(self.seed)
        step = max(1, _DRAWS_AT_ONCE // max(self.count, 1))
        for start in range(0, self.n_resamples, step):
            rows = min(step, self.n_resamples - start)
            drawn = rng.integers(self.count, size=(rows, self.count))
            drawn += np.arange(rows)[:, None] * self.count
            yield np.bincount(drawn.ravel(), minlength=rows * self.count).reshape(rows, self.count)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the phrases of each resample, for every column.

        Parameters
        ----------
        values : numpy.ndarray, shape (phrases, columns)
            NaN where undefined: left out of the mean.

        Returns
        -------
        numpy.ndarray, shape (n_resamples, columns)
            NaN where a resample holds no defined value.
        """
        sums, counts = (np.zeros((self.count, values.shape[1])) for _ in range(2))
        defined = ~np.isnan(values)
        np.add.at(sums, self.units, np.where(defined, values, 0.0))
        np.add.at(counts, self.units, defined)
        replicates = []
        for weights in self.weights():
            replicates.append(ratio(weights @ sums, weights @ counts))
        return np.concatenate(replicates) if replicates else np.full((0, values.shape[1]), np.nan)


def ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return sums over how many were summed; NaN where none was."""
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def known_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each column's defined values; NaN where none is defined."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def interval(replicates: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of each column of replicates.

    Parameters
    ----------
    replicates : numpy.ndarray, shape (n_resamples, columns)
    units : numpy.ndarray of int, shape (columns,)
        Units with a defined value: below two there is nothing to resample, and the interval is NaN.
    """
    low, high = np.full(replicates.shape[1], np.nan), np.full(replicates.shape[1], np.nan)
    known = (units >= 2) & ~np.isnan(replicates).all(axis=0)
    if known.any():
        share = (1 - CONFIDENCE) / 2
        low[known], high[known] = np.nanquantile(replicates[:, known], [share, 1 - share], axis=0)
    return low, high


def defined_units(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return how many units have a defined value, for each column of ``(phrases, columns)``."""
    return np.array([len(np.unique(units[~np.isnan(column)])) for column in values.T], dtype=np.int64)
