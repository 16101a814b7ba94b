"""Tell events that were given from events that the listener detected."""

from __future__ import annotations

import numpy as np
import pandas as pd

ORIGIN = "origin"
LISTENER = "listener"


def heard(table: pd.DataFrame) -> np.ndarray:
    """Return a mask of the rows that the listener detected, or whose sound it did not detect.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table. A row was given unless its column ``origin`` is "listener".

    Returns
    -------
    numpy.ndarray of bool, shape (rows,)
    """
    if ORIGIN not in table.columns:
        return np.zeros(len(table), dtype=bool)
    return (table[ORIGIN] == LISTENER).to_numpy(dtype=bool)


def origin_name(table: pd.DataFrame) -> str:
    """Return the name of the events in a legend or a sentence: given, heard by the listener, or both."""
    by_listener = heard(table)
    if by_listener.any():
        return "heard by the listener" if by_listener.all() else "given event, or heard by the listener"
    return "given event"
