"""Rank-based scores of curves: ROC-AUC and average precision, with ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnviz.alignment.arrays import as_active, as_rows, back, is_mixed
from attnviz.arguments import public


@dataclass(frozen=True)
class Ranking:
    """Order of the values of each row.

    Attributes
    ----------
    order : numpy.ndarray of int, shape (rows, columns)
        Columns in ascending order of value.
    first : numpy.ndarray of int, shape (rows, columns)
        Position in that order of the first value equal to this one.
    ranks : numpy.ndarray, float64, shape (rows, columns)
        Rank of each column, from 1; ties have their mean rank.
    """

    order: np.ndarray
    first: np.ndarray
    ranks: np.ndarray


def rank(values: np.ndarray) -> Ranking:
    """Rank each row of ``(rows, columns)``."""
    columns = values.shape[1]
    place = np.arange(columns)
    order = np.argsort(values, axis=1)
    ascending = np.take_along_axis(values, order, axis=1)
    begins = np.ones(values.shape, dtype=bool)
    np.not_equal(ascending[:, 1:], ascending[:, :-1], out=begins[:, 1:])
    ends = np.ones(values.shape, dtype=bool)
    ends[:, :-1] = begins[:, 1:]
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, place, columns)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return Ranking(order, first, ranks)


@public
def roc_auc(*, curves: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Compute the area under the ROC curve of each curve.

    This is the probability that an active column has a higher value than an inactive one; ties count half. 1 is
    best, 0.5 is chance.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite values without columns of padding.
    active : array-like of bool, shape (..., columns)
        Whether the sound is present.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 in [0, 1]; NaN if no or every column is active.

    Raises
    ------
    MapsError
        If shapes differ, values are not finite, or `active` contains fractions.

    Examples
    --------
    >>> float(roc_auc(curves=[0.1, 0.4, 0.4, 0.8], active=[0, 0, 1, 1]))
    0.875
    """
    rows, there = as_rows("The curves", curves), as_active(active, curves)
    return back(auc_of(rank(rows), there), curves)


@public
def average_precision(*, curves: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Compute the average precision of each curve.

    This is the sum over thresholds of precision times the increase in recall, as in scikit-learn: ties are
    detected together. 1 is best; chance is close to the fraction of active columns.

    Parameters, return value and errors are those of `roc_auc`.

    Notes
    -----
    **Differences from scikit-learn.** scikit-learn returns 1 if every column is active, and 0 with a warning if
    none is; here both are NaN.

    Examples
    --------
    >>> float(average_precision(curves=[0.1, 0.9, 0.4, 0.8], active=[0, 0, 1, 1]).round(3))
    0.583
    """
    rows, there = as_rows("The curves", curves), as_active(active, curves)
    return back(precision_of(rank(rows), there), curves)


def auc_of(ranking: Ranking, active: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of ranked rows."""
    return auc_of_sums(np.einsum("ij,ij->i", ranking.ranks, active), active.sum(axis=1), active.shape[1])


def auc_of_sums(sums: np.ndarray, positives: np.ndarray, columns: int) -> np.ndarray:
    """Return the area from the rank sums of active columns; NaN if no or every column is active."""
    pairs = positives * (columns - positives)
    return np.divide(
        sums - positives * (positives + 1) / 2, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0
    )


def precision_of(ranking: Ranking, active: np.ndarray) -> np.ndarray:
    """Return the average precision of ranked rows."""
    there = np.take_along_axis(active, ranking.order, axis=1)
    below = np.cumsum(there, axis=1) - there  # active columns before each position in ascending order
    positives = there.sum(axis=1)
    # A threshold at a value detects all columns from the first equal value on.
    found = positives[:, None] - np.take_along_axis(below, ranking.first, axis=1)
    precision = found / (there.shape[1] - ranking.first)
    summed = np.einsum("ij,ij->i", precision, there)
    return np.divide(summed, positives, out=np.full(summed.shape, np.nan), where=is_mixed(active))
