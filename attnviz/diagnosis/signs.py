"""Compute the values of the signs from arrays."""

from __future__ import annotations

import numpy as np

from attnviz.audio.settings import LOG_CEILING

AUDIBLE_DB = 60.0
"""Range in dB below the loudest cell in which reconstruction errors are measured."""

_NEPER = 20 / np.log(10)  # dB per neper
_SAME = 1e-4  # nepers; tolerance for equal values


def entropy_share(values: np.ndarray) -> float:
    """Return the entropy of a map, normalised to sum 1, as a share of the maximum entropy.

    Parameters
    ----------
    values : numpy.ndarray, shape (rows, columns)
        Map. Negative values count by magnitude; NaN cells are ignored.

    Returns
    -------
    float
        Value in [0, 1]: 1 for a uniform map, 0 for a map with one non-zero cell. NaN for a map of zeros or of one
        cell.

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
    """Return Moran's I of a map: the spatial autocorrelation of vertically and horizontally adjacent cells.

    Parameters
    ----------
    values : numpy.ndarray, shape (rows, columns)
        Map. NaN cells and pairs that contain one are ignored.

    Returns
    -------
    float
        Close to 1 for a smooth map, about 0 (exactly -1 / (cells - 1)) for white noise, and negative for a
        chequerboard. NaN for a map that is constant up to float32 rounding or has no adjacent cells.

    References
    ----------
    P. A. P. Moran, "Notes on continuous stochastic phenomena", Biometrika 37, 1950; here with equal weights of
    cells that share an edge.

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
    """Return the mean total variation distance between two distributions over the first axis.

    Parameters
    ----------
    one, other : numpy.ndarray, shape (keys, ...)
        Probabilities. If they sum to less than 1, the rest counts as one additional key.

    Returns
    -------
    float
        Value in [0, 1]; 0 for identical distributions.

    Examples
    --------
    >>> float(total_variation(np.array([0.5, 0.5]), np.array([0.75, 0.25])))
    0.25
    """
    gap = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return float((0.5 * (np.abs(gap).sum(axis=0) + np.abs(gap.sum(axis=0)))).mean())


def relative_difference(guided: np.ndarray, unguided: np.ndarray) -> float:
    """Return the RMS of the difference, relative to the RMS of the unguided prediction; NaN if that is 0."""
    base = np.sqrt(np.mean(np.square(unguided, dtype=np.float64)))
    gap = np.sqrt(np.mean(np.square(np.subtract(guided, unguided, dtype=np.float64))))
    return float(gap / base) if base > 0 else float("nan")


def clipped_share(log_mel: np.ndarray) -> float:
    """Return the share of cells at the maximum of the spectrogram, or at or above the image ceiling of ln 200."""
    return float((log_mel >= min(float(log_mel.max()), LOG_CEILING) - _SAME).mean())


def reconstruction_error(original: np.ndarray, reconstruction: np.ndarray) -> float:
    """Return the mean absolute difference of two log-mel spectrograms in dB over audible cells of the original."""
    audible = original >= original.max() - AUDIBLE_DB / _NEPER
    return float(_NEPER * np.abs(np.subtract(reconstruction, original, dtype=np.float64))[audible].mean())
