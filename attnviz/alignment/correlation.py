"""Correlation of a curve with the activity of a sound, and of the part that energy does not explain."""

from __future__ import annotations

import numpy as np

from attnviz.alignment.arrays import as_rows, back
from attnviz.alignment.ranking import rank
from attnviz.arguments import public

_EXPLAINED = 1e-9  # share of the variance below which what energy leaves over is rounding


@public
def pearson(*, curves: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each curve with the activity.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite; columns of padding are left out.
    activity : array-like, shape (..., columns)
        Share of each column in which the sound is there.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 in [-1, 1]; NaN where curve or activity is the same everywhere.

    Raises
    ------
    MapsError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> float(pearson(curves=[1.0, 2.0, 3.0, 4.0], activity=[0, 0, 1, 1]).round(3))
    0.894
    """
    rows, shares = as_rows("The curves", curves), as_rows("The activity", activity, curves)
    return back(product(standardized(rows), standardized(shares)), curves)


@public
def spearman(*, curves: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of each curve with the activity; equal values share their mean rank.

    Parameters, returns and errors as `pearson`.

    Examples
    --------
    >>> float(spearman(curves=[1.0, 2.0, 4.0, 9.0], activity=[0, 0.1, 0.5, 1]))
    1.0
    """
    rows, shares = as_rows("The curves", curves), as_rows("The activity", activity, curves)
    return back(product(standardized(rank(rows).ranks), standardized(rank(shares).ranks)), curves)


@public
def partial_correlation(*, curves: np.ndarray, activity: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return the correlation of each curve with the activity, given the energy envelope.

    Pearson's correlation of what is left of both once the energy's straight-line part is taken out.

    Parameters
    ----------
    curves, activity : array-like, shape (..., columns)
        As for `pearson`.
    energy : array-like, shape (..., columns)
        Energy envelope of the sound, finite.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 in [-1, 1]. NaN where curve or activity is the same everywhere, or is a straight-line
        function of the energy, so that nothing is left. Energy that is the same everywhere explains nothing:
        Pearson's correlation.

    Raises
    ------
    MapsError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> float(partial_correlation(curves=[1, 2, 1, 3], activity=[0, 1, 0, 1], energy=[0, 0, 1, 1]).round(3))
    0.949
    """
    rows, shares = as_rows("The curves", curves), as_rows("The activity", activity, curves)
    curve, there, level = map(standardized, (rows, shares, as_rows("The energy", energy, curves)))
    return back(product(unexplained(curve, level), unexplained(there, level)), curves)


def standardized(rows: np.ndarray) -> np.ndarray:
    """Return rows of mean 0 and length 1, so that a product of two is their correlation; NaN where constant."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    # Compared, not measured: the mean of equal values need not be that value to the last bit.
    varied = (rows.max(axis=1) > rows.min(axis=1)) & (length > 0)
    return np.divide(centred, length[:, None], out=np.full(rows.shape, np.nan), where=varied[:, None])


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation of standardized rows, pair by pair."""
    return np.clip(np.einsum("ij,ij->i", first, second), -1.0, 1.0)


def unexplained(rows: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return what the energy's straight-line part leaves of standardized rows, standardized again.

    NaN where it leaves nothing; energy of NaN, which is constant, explains nothing.
    """
    level = np.nan_to_num(energy)
    explained = product(rows, level)[:, None]
    left = 1 - explained**2
    shape = rows.shape
    return np.divide(rows - explained * level, np.sqrt(left), out=np.full(shape, np.nan), where=left > _EXPLAINED)
