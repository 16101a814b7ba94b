"""Scores of localization: in time, at the onset, and in time and frequency."""

from __future__ import annotations

import numpy as np

from attnviz.alignment.arrays import as_active, as_rows, back, is_mixed
from attnviz.arguments import public
from attnviz.errors import MapsError


@public
def pointing(*, curves: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Compute the pointing game in time: whether the maximum of the curve is in an active column.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite values without columns of padding.
    active : array-like of bool, shape (..., columns)
        Whether the sound is present.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64: 1 for a hit, 0 for a miss. With several maxima, the fraction of hits, so the score of a
        constant curve is the fraction of active columns, which is chance. NaN if no or every column is active.

    Raises
    ------
    MapsError
        If shapes differ, values are not finite, or `active` contains fractions.

    Examples
    --------
    >>> float(pointing(curves=[0.1, 0.9, 0.9, 0.2], active=[0, 0, 1, 1]))
    0.5
    """
    rows, there = as_rows("The curves", curves), as_active(active, curves)
    return back(pointing_of(rows, there), curves)


def pointing_of(rows: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return the fraction of active columns among the maxima of each row."""
    highest = rows == rows.max(axis=1, keepdims=True)
    hits = (highest & active).sum(axis=1) / highest.sum(axis=1)
    return np.where(is_mixed(active), hits, np.nan)


@public
def onset_error(*, curves: np.ndarray, onsets: np.ndarray, column_seconds: float | np.ndarray) -> np.ndarray:
    """Compute the onset error of each curve in seconds; positive if the curve rises too late.

    The onset of a curve is the left edge of its first column that reaches the middle of its range,
    ``(minimum + maximum) / 2``. The true onset is that of the first event of the phrase.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite values without columns of padding; the first column is at 0 s.
    onsets : array-like, shape (...)
        True onsets in seconds; NaN if there is none.
    column_seconds : float or array-like, shape (...)
        Width of a column in seconds, which limits the resolution.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 seconds; NaN if the curve is constant or there is no onset.

    Raises
    ------
    MapsError
        If shapes differ or values are not finite.

    Examples
    --------
    >>> float(onset_error(curves=[0.1, 0.2, 0.9, 0.8], onsets=0.75, column_seconds=0.5))
    0.25
    """
    rows = as_rows("The curves", curves)
    shape = np.shape(curves)[:-1]
    if np.shape(onsets) != shape or np.shape(column_seconds) not in ((), shape):
        raise MapsError(
            f"Curves of shape {np.shape(curves)} need onsets of shape {shape} and column widths that are a scalar "
            f"or of the same shape; the shapes are {np.shape(onsets)} and {np.shape(column_seconds)}."
        )
    width = np.broadcast_to(np.asarray(column_seconds, dtype=np.float64), shape).reshape(-1)
    return back(onset_error_of(rows, np.asarray(onsets, dtype=np.float64).reshape(-1), width), curves)


def onset_error_of(rows: np.ndarray, onsets: np.ndarray, column_seconds: np.ndarray) -> np.ndarray:
    """Return the signed onset error of each row, in seconds."""
    lowest, highest = rows.min(axis=1), rows.max(axis=1)
    first = np.argmax(rows >= ((lowest + highest) / 2)[:, None], axis=1)
    return np.where(highest > lowest, first * column_seconds - onsets, np.nan)


@public
def mask_iou(*, heat: np.ndarray, mask: np.ndarray) -> float:
    """Compute the intersection over union of the highest cells of a heat map with a time-frequency mask.

    The number of selected cells equals that of the mask, so no threshold is needed. Ties at the limit are selected
    in part, so the score of a constant map is the chance level.

    Parameters
    ----------
    heat : array-like, shape (rows, columns)
        Finite values without columns of padding.
    mask : array-like of bool, shape (rows, columns)
        Cells that belong to the sound.

    Returns
    -------
    float
        In [0, 1]; NaN if the mask contains no cell or every cell.

    Raises
    ------
    MapsError
        If shapes differ, values are not finite, or the mask contains fractions.

    Examples
    --------
    >>> mask_iou(heat=[[0.9, 0.1], [0.8, 0.2]], mask=[[1, 1], [0, 0]])  # one cell of three
    0.3333333333333333
    """
    values, inside = as_rows("The heat map", heat).ravel(), as_active(mask, heat).ravel()
    wanted = int(inside.sum())
    if wanted in (0, inside.size):
        return float("nan")
    limit = np.partition(values, -wanted)[-wanted]
    above, at = values > limit, values == limit
    taken = above + at * ((wanted - above.sum()) / at.sum())
    return float(np.minimum(taken, inside).sum() / np.maximum(taken, inside).sum())
