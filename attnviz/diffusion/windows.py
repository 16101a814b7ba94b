"""Divide long clips into windows, and join the maps of the windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from attnviz.audio import MEL, SpectrogramGrid
from attnviz.audio.settings import finite_number
from attnviz.capture import CapturedLayer
from attnviz.errors import AudioError, CaptureError

WIDTH = SpectrogramGrid().width
"""Spectrogram columns of a window: the width of the model input."""

_OVERLAP = 2.56  # a quarter of Auffusion's window


def default_overlap(
    column: int, width: int = WIDTH, frame_seconds: float = MEL.hop_length / MEL.sampling_rate
) -> float:
    """Return the default overlap of adjacent windows in seconds, for `window_starts`.

    It is 2.56 s, but at most a quarter of a window, and never more than fits.
    """
    return min(_OVERLAP, width * frame_seconds / 4, (width - column) * frame_seconds)


def window_starts(
    frames: int,
    *,
    overlap: float,
    column: int,
    width: int = WIDTH,
    frame_seconds: float = MEL.hop_length / MEL.sampling_rate,
) -> tuple[int, ...]:
    """Return the spectrogram columns at which the windows of a clip begin.

    Parameters
    ----------
    frames : int
        Spectrogram columns of the clip.
    overlap : float
        Minimum overlap of adjacent windows in seconds.
    column : int
        Spectrogram columns per column of the coarsest layer. Windows begin at multiples of it, so that the columns
        of all layers coincide.
    width : int
        Spectrogram columns of a window.
    frame_seconds : float
        Duration of a spectrogram column.

    Returns
    -------
    tuple of int
        Ascending columns from 0. The last window begins at the first multiple from which it reaches the end of the
        clip.

    Raises
    ------
    AudioError
        If the overlap is negative or longer than a window less one such column.

    Examples
    --------
    >>> window_starts(1024, overlap=2.56, column=64)
    (0,)
    >>> window_starts(2000, overlap=2.56, column=64)
    (0, 768, 1024)
    """
    shared = finite_number("overlap", overlap) / frame_seconds
    # Round first, so that 2.56 s are exactly 256 columns.
    hop = int((width - np.ceil(round(shared, 6))) // column * column)
    if shared < 0 or hop < column:
        most = (width - column) * frame_seconds
        raise AudioError(
            f"overlap={overlap:g} is not a number of seconds from 0 to {most:g}. A window is "
            f"{width * frame_seconds:g} s long; was the overlap given in percent or milliseconds?"
        )
    last = max(0, -(-(frames - width) // column) * column)
    return (*range(0, last, hop), last)


def cross_fade(starts: Sequence[int], columns: int, width: int = WIDTH) -> np.ndarray:
    """Return the cross-fade weights of the windows for each column of a clip.

    Parameters
    ----------
    starts : sequence of int
        Spectrogram columns at which the windows begin.
    columns : int
        Columns of a layer per window.
    width : int
        Spectrogram columns of a window.

    Returns
    -------
    numpy.ndarray, shape (windows, columns of the clip), float64
        Weights in [0, 1] that sum to 1 over windows. In overlaps, the weight of a window is proportional to the
        distance of the column centre from the nearer end of the window, because the model has less context there.

    Examples
    --------
    >>> cross_fade((0, 512), 4)
    array([[1.  , 1.  , 0.75, 0.25, 0.  , 0.  ],
           [0.  , 0.  , 0.25, 0.75, 1.  , 1.  ]])
    """
    firsts = [start * columns // width for start in starts]
    centres = np.arange(columns) + 0.5
    weights = np.zeros((len(starts), firsts[-1] + columns))
    for row, first in zip(weights, firsts, strict=True):
        row[first : first + columns] = np.minimum(centres, columns - centres)
    return weights / weights.sum(axis=0)


def join_windows(
    windows: Iterable[Mapping[str, CapturedLayer]], starts: Sequence[int], width: int = WIDTH
) -> Mapping[str, CapturedLayer]:
    """Join the maps of a clip's windows on one time axis, cross-faded where they overlap.

    Parameters
    ----------
    windows : iterable of mappings of str to CapturedLayer
        Captured layers of each window, consumed one at a time.
    starts : sequence of int
        Spectrogram columns at which the windows begin; see `window_starts`.
    width : int
        Spectrogram columns of a window.

    Returns
    -------
    mapping of str to CapturedLayer
        Layers with the columns of the whole clip. A single window is returned unchanged.

    Raises
    ------
    CaptureError
        If a window begins between two columns of a layer.
    """
    if len(starts) == 1:
        return next(iter(windows))
    joined: dict[str, CapturedLayer] = {}
    for number, window in enumerate(windows):
        for name, layer in window.items():
            columns = layer.attention.shape[-1]
            if any(start * columns % width for start in starts):
                raise CaptureError(
                    f"{name} has {columns} columns in a window of {width}, so windows that begin at {starts} are "
                    "not aligned with them and cannot be joined. Divide the clip into shorter clips instead."
                )
            shares = cross_fade(starts, columns, width)
            if name not in joined:
                whole = np.zeros((*layer.attention.shape[:-1], shares.shape[1]), dtype=np.float32)
                joined[name] = replace(layer, attention=whole)
            first = starts[number] * columns // width
            part = slice(first, first + columns)
            joined[name].attention[..., part] += layer.attention * shares[number, part].astype(np.float32)
    return joined
