"""The event table: its columns, and the check that every table passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from attnviz.errors import EventsError

REQUIRED = ("clip", "label", "onset", "offset")
OPTIONAL = ("low", "high", "span")
SHORTEST = 1e-6  # seconds; an event shorter than this has no length, as for the scores of `attnviz.alignment`
_NUMBERS = ("onset", "offset", "low", "high")

Place = Callable[[int], str]  # number of a row -> where it stands in its source, in words


def event_table(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a checked event table, the caller's rows untouched.

    Parameters
    ----------
    rows : pandas.DataFrame or iterable of mappings
        The events; see `attnviz.events` for the columns. No rows at all is a table without events.

    Returns
    -------
    pandas.DataFrame
        The columns of the contract first (`low`, `high` and `span` only where given), the others after
        them; rows in the order given, numbered from 0. Times and frequencies are float64.

    Raises
    ------
    EventsError
        A column is missing or there twice; a time is no number, negative, infinite, or missing while the other
        of its pair is there; an offset is before its onset; a band is not ``0 <= low < high``; a span is not
        ``0 <= start < end``. The message gives the row.
    """
    return checked_table(rows, "row {}".format)


def checked_table(rows: pd.DataFrame | Iterable[Mapping[str, Any]], place: Place) -> pd.DataFrame:
    """Return `event_table` of rows that stand at known places of a file, which its messages name."""
    frame = rows.reset_index(drop=True) if isinstance(rows, pd.DataFrame) else _frame(rows)
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise EventsError(f"an event table needs the columns {list(REQUIRED)}; missing: {missing}.")
    twice = sorted(set(map(str, frame.columns[frame.columns.duplicated()])))
    if twice:
        raise EventsError(f"an event table has each column once; more than once: {twice}.")
    contract = [name for name in (*REQUIRED, *OPTIONAL) if name in frame.columns]
    others = [name for name in frame.columns if name not in contract]
    table = frame[[*contract, *others]].copy()
    for name in ("clip", "label"):
        table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    for name in _NUMBERS:
        if name in table.columns:
            table[name] = _floats(table[name], place)
    _check_pairs(table, "onset", "offset", "s", place, strict=False)
    if ("low" in table.columns) != ("high" in table.columns):
        raise EventsError("an event table has both of the columns low and high, or neither.")
    if "low" in table.columns:
        _check_pairs(table, "low", "high", "Hz", place, strict=True)
    if "span" in table.columns:
        spans = [_span(value, row, place) for row, value in enumerate(table["span"])]
        table["span"] = pd.Series(spans, dtype=object, index=table.index)
    return table


def scorable(table: pd.DataFrame) -> pd.Series:
    """Say which rows of an event table are events that can be scored.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table.

    Returns
    -------
    pandas.Series of bool
        False for a row without times, which says that its clip has no events, and for an event shorter than a
        microsecond, which covers no part of any column.

    Examples
    --------
    >>> rows = [("a.wav", "dog", 0.5, 0.7), ("a.wav", "cat", 0.9, 0.9), ("b.wav", "", None, None)]
    >>> scorable(pd.DataFrame(rows, columns=REQUIRED)).tolist()
    [True, False, False]
    """
    return (table["offset"] - table["onset"]) >= SHORTEST


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    records = list(rows)
    odd = next((record for record in records if not isinstance(record, Mapping)), None)
    if odd is not None:
        raise EventsError(f"a row of events is {odd!r}; a mapping of column names to values is needed.")
    return pd.DataFrame(records) if records else pd.DataFrame({name: [] for name in REQUIRED})


def _floats(column: pd.Series, place: Place) -> pd.Series:
    values = []
    for row, value in enumerate(column):
        try:
            values.append(_number(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise EventsError(f"{place(row)}: {column.name} is {shown(value)}; a number is needed.") from error
    return pd.Series(values, dtype=float, index=column.index)


def _number(value: Any) -> float:
    if value is None or value is pd.NA or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):  # float() takes "1_000"
        raise ValueError(value)
    return float(value)


def shown(value: Any) -> str:
    """Return a value as a message can show it: a long text is cut, a container is not unfolded."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, list | dict) for one in value)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_pairs(table: pd.DataFrame, first: str, second: str, unit: str, place: Place, *, strict: bool) -> None:
    lows, highs = (table[name].to_numpy(dtype=np.float64) for name in (first, second))
    unpaired = np.isnan(lows) != np.isnan(highs)
    impossible = np.isinf(lows) | np.isinf(highs) | (lows < 0) | (highs < 0)
    swapped = (highs <= lows) if strict else (highs < lows)
    for wrong, reason in (
        (unpaired, "both are needed, or neither."),
        (impossible, "finite values from 0 are needed."),
        (swapped, f"{first} must come first. Were the columns swapped?"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            given = f"{first} {lows[row]:g} {unit}, {second} {highs[row]:g} {unit}"
            raise EventsError(f"{place(row)}: {given}; {reason}")


def _span(value: Any, row: int, place: Place) -> tuple[int, int] | None:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        start, end = (int(part.__index__()) for part in value)
    except (TypeError, ValueError, AttributeError):
        start, end = 0, 0
    if not 0 <= start < end:
        raise EventsError(f"{place(row)}: span is {shown(value)}; (start, end) with 0 <= start < end is needed.")
    return start, end
