"""Scores of where a map points: in time, at the onset, and in time and frequency."""

from __future__ import annotations

import numpy as np

from attnviz.alignment.arrays import as_active, as_rows, back, is_mixed
from attnviz.arguments import public
from attnviz.errors import MapsError


@public
def pointing(*, curves: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Play the pointing game in time: say whether the sound is there in the column of the highest value.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite; columns of padding are left out.
    active : array-like of bool, shape (..., columns)
        Whether the sound is there.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64: 1 for a hit, 0 for a miss. Of several highest columns, the share that hits, so that a
        constant curve scores the share of active columns, which is chance. NaN where the sound is never there,
        or always.

    Raises
    ------
    MapsError
        Shapes differ, values are not finite, or `active` holds shares.

    Examples
    --------
    >>> float(pointing(curves=[0.1, 0.9, 0.9, 0.2], active=[0, 0, 1, 1]))
    0.5
    """
    rows, there = as_rows("The curves", curves), as_active(active, curves)
    return back(pointing_of(rows, there), curves)


def pointing_of(rows: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return the share of each row's highest columns that are active."""
    highest = rows == rows.max(axis=1, keepdims=True)
    hits = (highest & active).sum(axis=1) / highest.sum(axis=1)
    return np.where(is_mixed(active), hits, np.nan)


@public
def onset_error(*, curves: np.ndarray, onsets: np.ndarray, column_seconds: float | np.ndarray) -> np.ndarray:
    """Return by how many seconds each curve rises too late (above 0) or too early (below 0).

    A curve's onset is the left edge of its first column at or above the middle of its range,
    ``(lowest + highest) / 2``. The true one is the phrase's first event's. Later events do not count.

    Parameters
    ----------
    curves : array-like, shape (..., columns)
        Finite, the first column at 0 s; columns of padding are left out.
    onsets : array-like, shape (...)
        True onsets in seconds; NaN where there is none.
    column_seconds : float or array-like, shape (...)
        Width of a column in seconds: no error can be known better.

    Returns
    -------
    numpy.ndarray
        ``(...)`` float64 seconds; NaN where the curve is the same everywhere, or there is no onset.

    Raises
    ------
    MapsError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> float(onset_error(curves=[0.1, 0.2, 0.9, 0.8], onsets=0.75, column_seconds=0.5))
    0.25
    """
    rows = as_rows("The curves", curves)
    shape = np.shape(curves)[:-1]
    if np.shape(onsets) != shape or np.shape(column_seconds) not in ((), shape):
        raise MapsError(
            f"Curves of shape {np.shape(curves)} need onsets of shape {shape}, and one column width or as many; "
            f"the shapes are {np.shape(onsets)} and {np.shape(column_seconds)}."
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
    """Return the intersection over union of a heat map's highest cells with a mask in time and frequency.

    As many cells are taken as the mask has, so no threshold has to be chosen. Of cells with equal values at
    the limit each is taken in part: a constant map takes every cell by the mask's share, and scores what chance
    does.

    Parameters
    ----------
    heat : array-like, shape (rows, columns)
        Finite; columns of padding are left out.
    mask : array-like of bool, shape (rows, columns)
        Cells in which the sound is.

    Returns
    -------
    float
        In [0, 1]; NaN where the mask holds no cell, or every cell.

    Raises
    ------
    MapsError
        Shapes differ, values are not finite, or the mask holds shares.

    Examples
    --------
    >>> mask_iou(heat=[[0.9, 0.1], [0.8, 0.2]], mask=[[1, 1], [0, 0]])  # one of three
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
