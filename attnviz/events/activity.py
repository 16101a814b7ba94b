"""Which share of each column of a spectrogram events cover."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from attnviz.audio import CellGrid, SpectrogramGrid


def column_activity(
    onsets: Iterable[float], offsets: Iterable[float], grid: SpectrogramGrid | CellGrid, columns: int | None = None
) -> np.ndarray:
    """Return which share of each column is covered by events.

    Parameters
    ----------
    onsets, offsets : iterable of float
        Seconds; events may overlap, and what lies outside the grid does not count.
    grid : SpectrogramGrid or CellGrid
        What second each column is.
    columns : int, optional
        Equal shares of a spectrogram's width; None: the spectrogram's own columns, or those of the cells.

    Returns
    -------
    numpy.ndarray
        ``(columns,)`` float64 in [0, 1]: 1 where the column is inside events from edge to edge.

    Examples
    --------
    >>> column_activity([2.56, 5.12], [5.12, 6.4], SpectrogramGrid(), 4).tolist()
    [0.0, 1.0, 0.5, 0.0]
    """
    if columns is None:
        columns = grid.shape[1] if isinstance(grid, CellGrid) else grid.width
    edges = np.linspace(0.0, grid.seconds, columns + 1)
    covered = np.zeros_like(edges)  # seconds covered before each edge
    reached = 0.0
    for onset, offset in sorted(zip(onsets, offsets, strict=True)):
        if offset > max(onset, reached):  # a union: what an earlier event covered does not count twice
            start = max(onset, reached)
            covered += np.clip(edges, start, offset) - start
            reached = offset
    share = np.diff(covered) * columns / grid.seconds
    return np.clip(np.round(share, 12), 0.0, 1.0)  # a whole column is 1, and not 0.9999999999999998
