"""The numbers behind the findings: pure functions of arrays."""

from __future__ import annotations

import numpy as np

from attnviz.audio.settings import LOG_CEILING

AUDIBLE_DB = 60.0
"""Cells within this many dB of the loudest count in a reconstruction."""

_NEPER = 20 / np.log(10)  # dB in a nat
_SAME = 1e-4  # nats: closer values are one value


def entropy_share(values: np.ndarray) -> float:
    """Return the entropy of a map that is divided by its sum, as a share of the maximum.

    Parameters
    ----------
    values : numpy.ndarray, shape (rows, columns)
        Of a negative value the magnitude counts; NaN cells are left out.

    Returns
    -------
    float
        In [0, 1]; 1: the same everywhere, 0: all in one cell. NaN of a map of zeros, or of one cell.

    Examples
    --------
    >>> round(entropy_share(np.array([[1.0, 1.0, 0.0, 0.0]])), 6)
    0.5
    """
    cells = np.abs(values[np.isfinite(values)].astype(np.float64))
    total = cells.sum()
    if cells.size < 2 or total <= 0:
        return float("nan")
    shares = cells[cells > 0] / total
    return float(min(max(-(shares * np.log(shares)).sum(), 0.0) / np.log(cells.size), 1.0))


def moran(values: np.ndarray) -> float:
    """Return Moran's I of a map: how alike neighbouring cells are, above and below as well as beside.

    Parameters
    ----------
    values : numpy.ndarray, shape (rows, columns)
        NaN cells are left out, as are pairs with one.

    Returns
    -------
    float
        1: as smooth as can be; about 0 (exactly -1 / (cells - 1)): white noise; below: a chequerboard. NaN of a
        constant map, to float32's rounding, and where no two cells are neighbours.

    References
    ----------
    P. A. P. Moran, Notes on continuous stochastic phenomena, Biometrika 37, 1950, with equal weights of
    neighbours that share an edge.

    Examples
    --------
    >>> moran(np.indices((4, 6)).sum(axis=0) % 2)
    -1.0
    """
    cells = np.asarray(values, dtype=np.float64)
    known = np.isfinite(cells)
    if not known.any():
        return float("nan")
    centred = np.where(known, cells - cells[known].mean(), 0.0)
    variance = (centred**2).sum()
    pairs = (known[1:] & known[:-1]).sum() + (known[:, 1:] & known[:, :-1]).sum()
    if not pairs or variance <= 1e-12 * (cells[known] ** 2).sum():
        return float("nan")
    products = (centred[1:] * centred[:-1]).sum() + (centred[:, 1:] * centred[:, :-1]).sum()
    return float(known.sum() / pairs * products / variance)


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
    """Return which share of a probability moves between two distributions over the first axis, on average.

    Parameters
    ----------
    one, other : numpy.ndarray, shape (keys, ...)
        Probabilities. Where they sum to less than 1, what is missing counts as one more key.

    Returns
    -------
    float
        In [0, 1]; 0: alike.

    Examples
    --------
    >>> float(total_variation(np.array([0.5, 0.5]), np.array([0.75, 0.25])))
    0.25
    """
    gap = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return float((0.5 * (np.abs(gap).sum(axis=0) + np.abs(gap.sum(axis=0)))).mean())


def relative_difference(guided: np.ndarray, unguided: np.ndarray) -> float:
    """Return the root mean square of a difference over that of the unguided prediction; NaN where that is 0."""
    base = np.sqrt(np.mean(np.square(unguided, dtype=np.float64)))
    gap = np.sqrt(np.mean(np.square(np.subtract(guided, unguided, dtype=np.float64))))
    return float(gap / base) if base > 0 else float("nan")


def clipped_share(log_mel: np.ndarray) -> float:
    """Return the share of cells at the spectrogram's highest value, or beyond the image's ceiling of ln 200."""
    return float((log_mel >= min(float(log_mel.max()), LOG_CEILING) - _SAME).mean())


def reconstruction_error(original: np.ndarray, reconstruction: np.ndarray) -> float:
    """Return the mean absolute difference of two log-mel spectrograms in dB, over the original's audible cells."""
    audible = original >= original.max() - AUDIBLE_DB / _NEPER
    return float(_NEPER * np.abs(np.subtract(reconstruction, original, dtype=np.float64))[audible].mean())
