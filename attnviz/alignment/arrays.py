"""Check and resample arrays of curves. The last axis is time, without columns of padding."""

from __future__ import annotations

import numpy as np

from attnviz.errors import MapsError


def as_rows(name: str, values: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Return values as ``(rows, columns)`` float64.

    Parameters
    ----------
    name : str
        Name of the values in messages.
    values : array-like, shape (..., columns)
        Finite numbers or booleans.
    like : numpy.ndarray, optional
        Array with the required shape.

    Raises
    ------
    MapsError
        If the values are not finite numbers, have no column, or have another shape.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapsError(f"{name} are not an array of numbers: {error}") from error
    if array.ndim < 1 or not array.shape[-1] or (like is not None and array.shape != np.shape(like)):
        wanted = "(..., columns)" if like is None else f"{np.shape(like)}, that of the curves,"
        raise MapsError(f"{name} have the shape {array.shape}; it must be {wanted}.")
    if not np.isfinite(array).all():
        raise MapsError(
            f"{name} contain {np.count_nonzero(~np.isfinite(array))} values that are not finite. Columns of "
            "padding are NaN in an activation; remove them with curve[~padding]."
        )
    return array.reshape(-1, array.shape[-1])


def back(scores: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Return one score per row in the shape of the curves without their last axis; a float for a single curve."""
    return np.asarray(scores.reshape(np.shape(curves)[:-1])[()])


def is_mixed(active: np.ndarray) -> np.ndarray:
    """Return, for each row, whether it has both active and inactive columns."""
    return np.asarray(active.any(axis=-1) & ~active.all(axis=-1))


def as_active(active: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Return the activity as a bool array ``(rows, columns)``.

    Raises
    ------
    MapsError
        If it contains values other than booleans, 0 and 1, or differs in shape from the curves.
    """
    rows = as_rows("The active columns", active, curves)
    if not np.isin(rows, (0.0, 1.0)).all():
        raise MapsError(
            "The active columns must be booleans; fractions were given. Threshold them, for example share >= 0.5."
        )
    return rows.astype(bool)


def column_means(values: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the last axis within each column.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., frames)
    edges : numpy.ndarray, shape (columns + 1,)
        Left edge of each column and right edge of the last, in frames. Columns outside the frames have no weight.
    weights : numpy.ndarray, shape (frames,)
        Non-negative weights. A frame in two columns contributes to each by its overlap. The mean is NaN for
        columns without weight.
    """
    frames = values.shape[-1]
    part = np.minimum(edges[1:, None], np.arange(frames) + 1) - np.maximum(edges[:-1, None], np.arange(frames))
    shares = np.maximum(part, 0.0) * weights
    total = shares.sum(axis=1)
    return np.divide(
        values @ shares.T, total, out=np.full((*values.shape[:-1], len(edges) - 1), np.nan), where=total > 0
    )


def stretched(values: np.ndarray, columns: int, ratio: float | None = None) -> np.ndarray:
    """Resample the last axis linearly to `columns` values. The end values are held.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., have)
    columns : int
    ratio : float, optional
        Width of an output column relative to an input column; both start at the same edge. By default, the output
        spans the input.
    """
    have = values.shape[-1]
    if have == columns and ratio in (None, 1.0):
        return values
    at = (np.arange(columns) + 0.5) * (have / columns if ratio is None else ratio) - 0.5
    lower = np.clip(np.floor(at).astype(int), 0, have - 1)
    upper = np.minimum(lower + 1, have - 1)
    share = np.clip(at - lower, 0.0, 1.0)
    return values[..., lower] * (1 - share) + values[..., upper] * share
