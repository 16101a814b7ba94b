"""Compute the share of each spectrogram column that events cover."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from attnviz.arguments import public
from attnviz.audio import CellGrid, SpectrogramGrid
from attnviz.audio.settings import whole_number
from attnviz.errors import EventsError


@public
def column_activity(
    onsets: Iterable[float], offsets: Iterable[float], grid: SpectrogramGrid | CellGrid, columns: int | None = None
) -> np.ndarray:
    """Return the share of each column that events cover.

    Parameters
    ----------
    onsets, offsets : iterable of float
        Event times in seconds. Events may overlap. Parts outside the grid are ignored.
    grid : SpectrogramGrid or CellGrid
        Grid that maps columns to seconds.
    columns : int, optional
        Number of equal columns to divide the width of the grid into. By default, the columns of `grid`.

    Returns
    -------
    numpy.ndarray
        ``(columns,)`` float64 in [0, 1]; 1 where events cover the whole column.

    Raises
    ------
    EventsError
        If there are not as many onsets as offsets.
    AudioError
        If `columns` is not a whole number from 1 to 1 000 000.

    Examples
    --------
    >>> column_activity([2.56, 5.12], [5.12, 6.4], SpectrogramGrid(), 4).tolist()
    [0.0, 1.0, 0.5, 0.0]
    """
    if columns is None:
        columns = grid.shape[1] if isinstance(grid, CellGrid) else grid.width
    columns = whole_number("columns", columns)
    starts, ends = list(onsets), list(offsets)
    if len(starts) != len(ends):
        raise EventsError(f"there are {len(starts)} onsets and {len(ends)} offsets; each event has one of both.")
    edges = np.linspace(0.0, grid.seconds, columns + 1)
    covered = np.zeros_like(edges)  # seconds covered before each edge
    reached = 0.0
    for onset, offset in sorted(zip(starts, ends, strict=True)):
        if offset > max(onset, reached):  # overlapping events count once
            start = max(onset, reached)
            covered += np.clip(edges, start, offset) - start
            reached = offset
    share = np.diff(covered) * columns / grid.seconds
    return np.clip(np.round(share, 12), 0.0, 1.0)  # exactly 1 for a whole column, not 0.9999999999999998
