"""Correlation of curves with the activity of a sound, with and without controlling for energy."""

from __future__ import annotations

import numpy as np

from attnviz.alignment.arrays import as_rows, back
from attnviz.alignment.ranking import rank
from attnviz.arguments import public

_EXPLAINED = 1e-9  # fraction of the variance below which residuals are rounding errors


@public
def pearson(*, curves: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation of each curve with the activity.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite values without columns of padding.
    activity : array-like, shape (..., columns)
        Fraction of each column in which the sound is present.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 in [-1, 1]; NaN if the curve or the activity is constant.

    Raises
    ------
    MapsError
        If shapes differ or values are not finite.

    Examples
    --------
    >>> float(pearson(curves=[1.0, 2.0, 3.0, 4.0], activity=[0, 0, 1, 1]).round(3))
    0.894
    """
    rows, shares = as_rows("The curves", curves), as_rows("The activity", activity, curves)
    return back(product(standardized(rows), standardized(shares)), curves)


@public
def spearman(*, curves: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Compute Spearman's rank correlation of each curve with the activity. Ties have their mean rank.

    Parameters, return value and errors are those of `pearson`.

    Examples
    --------
    >>> float(spearman(curves=[1.0, 2.0, 4.0, 9.0], activity=[0, 0.1, 0.5, 1]))
    1.0
    """
    rows, shares = as_rows("The curves", curves), as_rows("The activity", activity, curves)
    return back(product(standardized(rank(rows).ranks), standardized(rank(shares).ranks)), curves)


@public
def partial_correlation(*, curves: np.ndarray, activity: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Compute the partial correlation of each curve with the activity, given the energy envelope.

    This is Pearson's correlation of the residuals of both after linear regression on the energy.

    Parameters
    ----------
    curves, activity : array-like, shape (..., columns)
        See `pearson`.
    energy : array-like, shape (..., columns)
        Energy envelope of the sound; finite values.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 in [-1, 1]. NaN if the curve or the activity is constant or a linear function of the
        energy. If the energy is constant, the result is Pearson's correlation.

    Raises
    ------
    MapsError
        If shapes differ or values are not finite.

    Examples
    --------
    >>> float(partial_correlation(curves=[1, 2, 1, 3], activity=[0, 1, 0, 1], energy=[0, 0, 1, 1]).round(3))
    0.949
    """
    rows, shares = as_rows("The curves", curves), as_rows("The activity", activity, curves)
    curve, there, level = map(standardized, (rows, shares, as_rows("The energy", energy, curves)))
    return back(product(unexplained(curve, level), unexplained(there, level)), curves)


def standardized(rows: np.ndarray) -> np.ndarray:
    """Return rows of mean 0 and norm 1, whose dot product is the correlation; NaN if constant."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    # Compare values, because the mean of equal values may differ from them by rounding.
    varied = (rows.max(axis=1) > rows.min(axis=1)) & (length > 0)
    return np.divide(centred, length[:, None], out=np.full(rows.shape, np.nan), where=varied[:, None])


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation of pairs of standardized rows."""
    return np.clip(np.einsum("ij,ij->i", first, second), -1.0, 1.0)


def unexplained(rows: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return the standardized residuals of standardized rows after linear regression on the energy.

    NaN if there is no residual. Energy that is NaN (constant) explains nothing.
    """
    level = np.nan_to_num(energy)
    explained = product(rows, level)[:, None]
    left = 1 - explained**2
    shape = rows.shape
    return np.divide(rows - explained * level, np.sqrt(left), out=np.full(shape, np.nan), where=left > _EXPLAINED)
