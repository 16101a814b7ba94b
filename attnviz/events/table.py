"""Check event tables and their columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError

REQUIRED = ("clip", "label", "onset", "offset")
OPTIONAL = ("low", "high", "span")
SHORTEST = 1e-6  # seconds; shorter events have zero length, here and in the scores of `attnviz.alignment`
_NUMBERS = ("onset", "offset", "low", "high")

Place = Callable[[int], str]  # row index -> its position in the source, as text


@public
def event_table(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a checked event table, without changing the input.

    Parameters
    ----------
    rows : pandas.DataFrame or iterable of mappings
        The events; see `attnviz.events` for the columns. An empty input gives a table without events.

    Returns
    -------
    pandas.DataFrame
        The columns of an event table (`low`, `high` and `span` only if given), followed by the additional columns.
        Rows keep their order and are numbered from 0. Times and frequencies are float64.

    Raises
    ------
    EventsError
        If a column is missing or duplicated, a time is not a number, negative or infinite, only one of onset and
        offset is given, an offset precedes its onset, a band does not satisfy ``0 <= low < high``, or a span does
        not satisfy ``0 <= start < end``. The message gives the row.
    """
    return checked_table(rows, "row {}".format)


def checked_table(rows: pd.DataFrame | Iterable[Mapping[str, Any]], place: Place) -> pd.DataFrame:
    """Apply `event_table` to rows with known positions in a file, which the error messages give."""
    if isinstance(rows, str | PathLike):
        raise EventsError(f"{str(rows)!r} is a path, not a table; read it with read_events, or audio with listen.")
    frame = rows.reset_index(drop=True) if isinstance(rows, pd.DataFrame) else _frame(rows)
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise EventsError(f"an event table needs the columns {list(REQUIRED)}; missing: {missing}.")
    twice = sorted(set(map(str, frame.columns[frame.columns.duplicated()])))
    if twice:
        raise EventsError(f"an event table has each column once; duplicated: {twice}.")
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
        raise EventsError("an event table has both of the columns low and high, or neither; one is missing.")
    if "low" in table.columns:
        _check_pairs(table, "low", "high", "Hz", place, strict=True)
    if "span" in table.columns:
        spans = [_span(value, row, place) for row, value in enumerate(table["span"])]
        table["span"] = pd.Series(spans, dtype=object, index=table.index)
    return table


@public
def scorable(table: pd.DataFrame) -> pd.Series:
    """Return a mask of the rows that are events and can be scored.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table.

    Returns
    -------
    pandas.Series of bool
        False for a row without times, which marks a clip without events, and for an event shorter than 1 µs, which
        has zero length.

    Examples
    --------
    >>> rows = [("a.wav", "dog", 0.5, 0.7), ("a.wav", "cat", 0.9, 0.9), ("b.wav", "", None, None)]
    >>> scorable(pd.DataFrame(rows, columns=REQUIRED)).tolist()
    [True, False, False]
    """
    if missing := [name for name in ("onset", "offset") if name not in table.columns]:
        raise EventsError(f"the table lacks the columns {missing}; an event table has {', '.join(REQUIRED)}.")
    return (table["offset"] - table["onset"]) >= SHORTEST


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    records = list(rows)
    odd = next((record for record in records if not isinstance(record, Mapping)), None)
    if odd is not None:
        raise EventsError(f"a row of events is {odd!r}; expected a mapping from column names to values.")
    return pd.DataFrame(records) if records else pd.DataFrame({name: [] for name in REQUIRED})


def _floats(column: pd.Series, place: Place) -> pd.Series:
    values = []
    for row, value in enumerate(column):
        try:
            values.append(_number(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise EventsError(f"{place(row)}: {column.name} is {shown(value)}; expected a number.") from error
    return pd.Series(values, dtype=float, index=column.index)


def _number(value: Any) -> float:
    if value is None or value is pd.NA or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):  # float() accepts "1_000"
        raise ValueError(value)
    return float(value)


def shown(value: Any) -> str:
    """Return a value for a message: long text is cut, nested containers are summarised."""
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
        (unpaired, "give both or neither."),
        (impossible, "expected finite values of at least 0."),
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
        raise EventsError(f"{place(row)}: span is {shown(value)}; expected (start, end) with 0 <= start < end.")
    return start, end
