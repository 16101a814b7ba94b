"""Bootstrap intervals over source recordings and clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

CONFIDENCE = 0.95
MOST_RESAMPLES = 100_000  # of a bootstrap or a permutation test; 1 000 are usual
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap resamples of whole units: all phrases of a source recording are drawn together.

    Phrases of the same clip are similar, as are phrases of the same recording. Therefore clips are drawn as well:
    the weight of a phrase is the number of draws of its recording times that of its clip (pigeonhole bootstrap).
    If each recording is in one clip, or each clip has one recording, only the coarser of the two is drawn.

    Parameters
    ----------
    units : numpy.ndarray of int, shape (phrases,)
        Index of the unit of each phrase, from 0.
    n_resamples : int
    seed : int
    clips : numpy.ndarray of int, shape (phrases,), optional
        Index of the clip of each phrase, from 0. By default, only units are drawn.

    References
    ----------
    A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007.
    """

    units: np.ndarray
    n_resamples: int
    seed: int
    clips: np.ndarray | None = None

    @cached_property
    def ways(self) -> tuple[np.ndarray, ...]:
        """The one or two partitions of the phrases that are resampled, each ``(phrases,)`` int from 0."""
        if self.clips is None or not len(self.units):
            return (self.units,)
        pairs = len(np.unique(np.column_stack([self.units, self.clips]), axis=0))
        if pairs == len(np.unique(self.units)):  # each recording is in one clip
            return (self.clips,)
        return (self.units,) if pairs == len(np.unique(self.clips)) else (self.units, self.clips)

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each phrase, ``(phrases,)`` int from 0. The phrases of a group always have equal weights."""
        if len(self.ways) == 1:
            return self.ways[0]
        return np.unique(np.column_stack(self.ways), axis=0, return_inverse=True)[1].reshape(-1)

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1 if len(self.groups) else 0

    def weights(self) -> Iterator[np.ndarray]:
        """Yield the number of draws of each group, ``(resamples, groups)``, in batches of resamples."""
        rng = np.random.default_rng(self.seed)
        first = np.unique(self.groups, return_index=True)[1]
        step = max(1, _DRAWS_AT_ONCE // max(self.count, *(_size(way) for way in self.ways), 1))
        for start in range(0, self.n_resamples, step):
            rows = min(step, self.n_resamples - start)
            if len(self.ways) == 1:
                yield _drawn(rng, rows, self.count)
            else:
                yield np.prod([_drawn(rng, rows, _size(way))[:, way[first]] for way in self.ways], axis=0)

    def clusters(self, values: np.ndarray) -> np.ndarray:
        """Return the number of units with a value for each column, the minimum over the partitions."""
        return np.min([defined_units(values, way) for way in self.ways], axis=0)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over phrases for each resample and column.

        Parameters
        ----------
        values : numpy.ndarray, shape (phrases, columns)
            NaN for undefined values, which are ignored.

        Returns
        -------
        numpy.ndarray, shape (n_resamples, columns)
            NaN if a resample has no defined value.
        """
        sums, counts = (np.zeros((self.count, values.shape[1])) for _ in range(2))
        defined = ~np.isnan(values)
        np.add.at(sums, self.groups, np.where(defined, values, 0.0))
        np.add.at(counts, self.groups, defined)
        return self.ratios(sums, counts)

    def ratios(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the mean for each resample and column from sums and counts of the groups.

        Parameters
        ----------
        sums, counts : numpy.ndarray, shape (groups, columns)
            Sum and number of each group's defined values.

        Returns
        -------
        numpy.ndarray, shape (n_resamples, columns)

        Notes
        -----
        With two partitions, the product of their weights overestimates the variance of components that belong to
        neither, by a factor of up to three. The resamples are therefore shrunk towards the mean to the two-way
        clustered variance: the variance over sources plus that over clips minus that over their pairs.

        References
        ----------
        Cameron, Gelbach and Miller, Robust inference with multiway clustering, JBES 29(2), 2011.
        """
        drawn = [ratio(weights @ sums, weights @ counts) for weights in self.weights()]
        replicates = np.concatenate(drawn) if drawn else np.full((0, sums.shape[1]), np.nan)
        if len(self.ways) == 1 or not len(replicates):
            return replicates
        total = counts.sum(axis=0)
        centre = ratio(sums.sum(axis=0), total)
        left = np.nan_to_num(sums - counts * centre)
        first = np.unique(self.groups, return_index=True)[1]
        ways = [(_summed(left, way[first]) ** 2).sum(axis=0) for way in self.ways]
        variance = np.maximum(np.sum(ways, axis=0) - (left**2).sum(axis=0), np.max(ways, axis=0))
        wide = np.array([np.nanvar(column) if not np.isnan(column).all() else np.nan for column in replicates.T])
        inwards = np.sqrt(np.minimum(ratio(variance, wide * total**2), 1.0))
        return centre + (replicates - centre) * np.where(np.isnan(inwards), 1.0, inwards)


def _summed(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the sum of rows for each unit."""
    total = np.zeros((_size(units), values.shape[1]))
    np.add.at(total, units, values)
    return total


def _size(way: np.ndarray) -> int:
    return int(way.max()) + 1 if len(way) else 0


def _drawn(rng: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """Return the number of draws of each unit in each resample, ``(rows, count)``."""
    drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Divide sums by counts; NaN if the count is 0."""
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def known_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of the defined values of each column; NaN if there are none."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def interval(replicates: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of each column of replicates.

    Parameters
    ----------
    replicates : numpy.ndarray, shape (n_resamples, columns)
    units : numpy.ndarray of int, shape (columns,)
        Number of units with a defined value. The interval is NaN for fewer than two units.
    """
    low, high = np.full(replicates.shape[1], np.nan), np.full(replicates.shape[1], np.nan)
    known = (units >= 2) & ~np.isnan(replicates).all(axis=0)
    if known.any():
        share = (1 - CONFIDENCE) / 2
        low[known], high[known] = np.nanquantile(replicates[:, known], [share, 1 - share], axis=0)
    return low, high


def defined_units(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the number of units with a defined value, for each column of ``(phrases, columns)``."""
    return np.array([len(np.unique(units[~np.isnan(column)])) for column in values.T], dtype=np.int64)
