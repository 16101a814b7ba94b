"""Arrays of curves as the scores take them: the last axis is time, columns of padding left out."""

from __future__ import annotations

import numpy as np

from attnviz.errors import MapsError


def as_rows(name: str, values: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Return values as ``(rows, columns)`` float64.

    Parameters
    ----------
    name : str
        What the message calls them.
    values : array-like, shape (..., columns)
        Finite numbers, or booleans.
    like : numpy.ndarray, optional
        Array whose shape they must have.

    Raises
    ------
    MapsError
        They are no finite numbers, have no column, or another shape.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MapsError(f"{name} are no array of numbers: {error}") from error
    if array.ndim < 1 or not array.shape[-1] or (like is not None and array.shape != np.shape(like)):
        wanted = "(..., columns)" if like is None else f"{np.shape(like)}, that of the curves,"
        raise MapsError(f"{name} have the shape {array.shape}; {wanted} is needed.")
    if not np.isfinite(array).all():
        raise MapsError(
            f"{name} hold {np.count_nonzero(~np.isfinite(array))} values that are not finite. Columns of padding "
            f"are NaN in an activation: leave them out, curve[~padding]."
        )
    return array.reshape(-1, array.shape[-1])


def back(scores: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Return one score a row in the shape of the curves without their last axis; a plain number for one curve."""
    return np.asarray(scores.reshape(np.shape(curves)[:-1])[()])


def is_mixed(active: np.ndarray) -> np.ndarray:
    """Say of each row whether it is active somewhere, and somewhere not."""
    return np.asarray(active.any(axis=-1) & ~active.all(axis=-1))


def as_active(active: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Return the truth as ``(rows, columns)`` bool.

    Raises
    ------
    MapsError
        It holds anything but booleans or 0 and 1, or has not the shape of the curves.
    """
    rows = as_rows("The active columns", active, curves)
    if not np.isin(rows, (0.0, 1.0)).all():
        raise MapsError("The active columns are booleans; shares were given. Compare them: share >= 0.5.")
    return rows.astype(bool)


def column_means(values: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the last axis's entries over each of some columns.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., frames)
    edges : numpy.ndarray, shape (columns + 1,)
        Where each column begins and the last ends, in frames; what lies outside the frames has no weight.
    weights : numpy.ndarray, shape (frames,)
        0 or above. A frame that lies in two columns counts in each by its part. Where a column has no weight
        the mean is NaN.
    """
    frames = values.shape[-1]
    part = np.minimum(edges[1:, None], np.arange(frames) + 1) - np.maximum(edges[:-1, None], np.arange(frames))
    shares = np.maximum(part, 0.0) * weights
    total = shares.sum(axis=1)
    return np.divide(
        values @ shares.T, total, out=np.full((*values.shape[:-1], len(edges) - 1), np.nan), where=total > 0
    )


def stretched(values: np.ndarray, columns: int, ratio: float | None = None) -> np.ndarray:
    """Return the last axis resampled linearly to `columns`; its ends are held.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., have)
    columns : int
    ratio : float, optional
        Width of a wanted column over that of one there is, both beginning at the same edge. None: so many columns
        are as long as all there are.
    """
    have = values.shape[-1]
    if have == columns and ratio in (None, 1.0):
        return values
    at = (np.arange(columns) + 0.5) * (have / columns if ratio is None else ratio) - 0.5
    lower = np.clip(np.floor(at).astype(int), 0, have - 1)
    upper = np.minimum(lower + 1, have - 1)
    share = np.clip(at - lower, 0.0, 1.0)
    return values[..., lower] * (1 - share) + values[..., upper] * share
