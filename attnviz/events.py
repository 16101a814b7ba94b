"""The table of sound events, and the files scenes are written to: TSV and JAMS.

An event table is a `pandas.DataFrame` with one row an event:

=========  ============================================================================================
column     what it holds
=========  ============================================================================================
clip       name of the audio file
label      the phrase or class that sounds
onset      seconds from the start of the clip; with `offset` missing (NaN) too: a clip without events
offset     seconds, not before `onset`
low, high  Hz, optional; NaN where unknown
span       (start, end) characters of the phrase in the caption, optional; None where unknown
=========  ============================================================================================

Further columns are kept as they are, after these.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnviz.audio import SpectrogramGrid
from attnviz.errors import EventsError
from attnviz.storage import write_whole

REQUIRED = ("clip", "label", "onset", "offset")
OPTIONAL = ("low", "high", "span")
_NUMBERS = ("onset", "offset", "low", "high")
_TSV_NAMES = {"clip": "filename", "label": "event_label"}  # DESED's
_TSV_FIRST = ("filename", "onset", "offset", "event_label")
_JAMS_VERSION = "0.3.5"


def event_table(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a checked event table, the caller's rows untouched.

    Parameters
    ----------
    rows : pandas.DataFrame or iterable of mappings
        The events; see the module's docstring for the columns. No rows at all is a table without events.

    Returns
    -------
    pandas.DataFrame
        The columns of the contract first (`low`, `high` and `span` only where given), the others after
        them; rows in the order given, numbered from 0. Times and frequencies are float64.

    Raises
    ------
    EventsError
        A column is missing; a time is no number, negative, infinite, or missing while the other of its pair
        is there; an offset is before its onset; a band is not ``0 <= low < high``; a span is not
        ``0 <= start < end``. The message gives the row.
    """
    frame = pd.DataFrame(list(rows)) if not isinstance(rows, pd.DataFrame) else rows.reset_index(drop=True)
    if frame.empty and not len(frame.columns):
        frame = pd.DataFrame({name: [] for name in REQUIRED})
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise EventsError(f"an event table needs the columns {list(REQUIRED)}; missing: {missing}.")
    contract = [name for name in (*REQUIRED, *OPTIONAL) if name in frame.columns]
    others = [name for name in frame.columns if name not in contract]
    table = frame[[*contract, *others]].copy()
    for name in ("clip", "label"):
        table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    for name in _NUMBERS:
        if name in table.columns:
            table[name] = _floats(table[name])
    _check_pairs(table, "onset", "offset", "s", strict=False)
    if ("low" in table.columns) != ("high" in table.columns):
        raise EventsError("an event table has both of the columns low and high, or neither.")
    if "low" in table.columns:
        _check_pairs(table, "low", "high", "Hz", strict=True)
    if "span" in table.columns:
        spans = [_span(value, row) for row, value in enumerate(table["span"])]
        table["span"] = pd.Series(spans, dtype=object, index=table.index)
    return table


def column_activity(
    onsets: Iterable[float], offsets: Iterable[float], grid: SpectrogramGrid, columns: int
) -> np.ndarray:
    """Return which share of each column is covered by events.

    Parameters
    ----------
    onsets, offsets : iterable of float
        Seconds; events may overlap, and what lies outside the grid does not count.
    grid : SpectrogramGrid
        What second each column is.
    columns : int
        Equal shares of the grid's width.

    Returns
    -------
    numpy.ndarray
        ``(columns,)`` float64 in [0, 1]: 1 where the column is inside events from edge to edge.

    Examples
    --------
    >>> column_activity([2.56, 5.12], [5.12, 6.4], SpectrogramGrid(), 4).tolist()
    [0.0, 1.0, 0.5, 0.0]
    """
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


def write_tsv(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write an event table as tab-separated text, as DESED names its columns.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table.
    path : path-like
        The file; replaced where it exists, whole or not at all.

    Raises
    ------
    EventsError
        `table` is not an event table.
    OutputError
        The file cannot be written.

    Notes
    -----
    The columns are ``filename``, ``onset``, ``offset``, ``event_label``, then the table's others; a span is
    written ``start:end``. Numbers are written so that reading gives them back exactly.
    """
    frame = event_table(table).rename(columns=_TSV_NAMES)
    if "span" in frame.columns:
        frame["span"] = ["" if span is None else f"{span[0]}:{span[1]}" for span in frame["span"]]
    others = [name for name in frame.columns if name not in _TSV_FIRST]
    text = frame[[*_TSV_FIRST, *others]].to_csv(None, sep="\t", index=False, lineterminator="\n")
    write_whole(path, text.encode("utf-8"))


def read_tsv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read what :func:`write_tsv` wrote, or a file with DESED's four columns.

    Returns
    -------
    pandas.DataFrame
        An event table. Columns beyond the contract are text.

    Raises
    ------
    EventsError
        No such file, a column is missing, or a value cannot be; with the file and, for a value, its row.
    """
    text = _read(path)
    try:
        frame = pd.read_csv(StringIO(text), sep="\t", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise EventsError(f"{path} is not a tab-separated table: {error}") from error
    absent = [name for name in _TSV_FIRST if name not in frame.columns]
    if absent:
        raise EventsError(
            f"{path} has the columns {list(frame.columns)}; {absent} are missing. Is it separated by tabs?"
        )
    frame = frame.rename(columns={name: ours for ours, name in _TSV_NAMES.items()})
    if "span" in frame.columns:
        frame["span"] = pd.Series([_parse_span(text) for text in frame["span"]], dtype=object)
    try:
        return event_table(frame)
    except EventsError as error:
        raise EventsError(f"{path}: {error}") from error


def is_tsv(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a file that begins as :func:`write_tsv` begins one."""
    place, begin = Path(path), "\t".join(_TSV_FIRST).encode()
    if not place.is_file():
        return False
    with place.open("rb") as file:
        return file.read(len(begin)) == begin


def write_jams(table: pd.DataFrame, path: str | os.PathLike[str], *, seconds: float) -> None:
    """Write the events of one clip as a JAMS file.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table of one clip.
    path : path-like
        The file; replaced where it exists, whole or not at all.
    seconds : float
        Length of the clip, in seconds.

    Raises
    ------
    EventsError
        `table` is not an event table, or holds several clips or none.
    OutputError
        The file cannot be written.

    Notes
    -----
    One annotation of the namespace ``segment_open`` (an interval with a text), which every reader of JAMS
    knows; ``sound_event``, which older sound event files carry, is in none of the namespaces that JAMS
    0.3.5 ships. What a segment cannot say (span, band, further columns) is in the annotation's sandbox, one
    record a segment, segments in the order of their onsets.
    """
    frame = event_table(table)
    clips = sorted(set(frame["clip"]))
    if len(clips) != 1:
        raise EventsError(f"a JAMS file describes one clip; the table has {len(clips)}: {clips[:5]}.")
    frame = frame[frame["onset"].notna()].sort_values("onset", kind="stable")
    data = [
        {"time": row["onset"], "duration": row["offset"] - row["onset"], "value": row["label"], "confidence": None}
        for _, row in frame.iterrows()
    ]
    extra = frame.drop(columns=["clip", "label", "onset"])  # the offset again: a sum need not give it exactly
    records = [{str(name): _plain(value) for name, value in row.items()} for _, row in extra.iterrows()]
    content = {
        "annotations": [
            {
                "annotation_metadata": {"annotation_tools": "attnviz", "data_source": "program"},
                "namespace": "segment_open",
                "data": data,
                "sandbox": {"records": records},
                "time": 0.0,
                "duration": float(seconds),
            }
        ],
        "file_metadata": {"title": clips[0], "duration": float(seconds), "jams_version": _JAMS_VERSION},
        "sandbox": {},
    }
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8"))


def read_jams(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the ``segment_open`` annotations of a JAMS file.

    Returns
    -------
    pandas.DataFrame
        An event table; a file that :func:`write_jams` wrote gives its rows back, by onset.

    Raises
    ------
    EventsError
        No such file, not JAMS, no annotation of that namespace, or a value that cannot be.
    """
    try:
        content = json.loads(_read(path))
        clip = str(content["file_metadata"].get("title") or Path(path).stem)
        found = [one for one in content["annotations"] if one["namespace"] == "segment_open"]
        rows = []
        for annotation in found:
            data = annotation["data"]
            records = (annotation.get("sandbox") or {}).get("records") or []
            extras = records if len(records) == len(data) else [{}] * len(data)
            for item, extra in zip(data, extras, strict=True):
                onset = item["time"]
                row = {"clip": clip, "label": item["value"], "onset": onset, "offset": onset + item["duration"]}
                row |= extra
                if row.get("span") is not None:
                    row["span"] = tuple(row["span"])
                rows.append(row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EventsError(f"{path} is not a JAMS file: {type(error).__name__}: {error}.") from error
    if not found:
        names = sorted({str(one["namespace"]) for one in content["annotations"]})
        raise EventsError(f"{path} has no segment_open annotation; it has {names}.")
    return event_table(rows)


def _read(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise EventsError(f"events cannot be read from {path}: {reason}.") from error


def _floats(column: pd.Series) -> pd.Series:
    values = []
    for row, value in enumerate(column):
        empty = value is None or value is pd.NA or (isinstance(value, str) and not value.strip())
        try:
            values.append(math.nan if empty else float(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise EventsError(f"row {row}: {column.name} is {value!r}; a number is needed.") from error
    return pd.Series(values, dtype=float, index=column.index)


def _check_pairs(table: pd.DataFrame, first: str, second: str, unit: str, *, strict: bool) -> None:
    for row, (low, high) in enumerate(zip(table[first], table[second], strict=True)):
        given = f"row {row}: {first} {low:g} {unit}, {second} {high:g} {unit}"
        if math.isnan(low) != math.isnan(high):
            raise EventsError(f"{given}; both are needed, or neither.")
        if math.isnan(low):
            continue
        if math.isinf(low) or math.isinf(high) or low < 0:
            raise EventsError(f"{given}; finite values from 0 are needed.")
        if high < low or (strict and high == low):
            raise EventsError(f"{given}; {first} must come first. Were the columns swapped?")


def _span(value: Any, row: int) -> tuple[int, int] | None:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        start, end = (int(part.__index__()) for part in value)
    except (TypeError, ValueError, AttributeError):
        start, end = 0, 0
    if not 0 <= start < end:
        raise EventsError(f"row {row}: span is {value!r}; (start, end) with 0 <= start < end is needed.")
    return start, end


def _parse_span(text: str) -> tuple[int, int] | str | None:
    if not text:
        return None
    start, colon, end = text.partition(":")
    return (int(start), int(end)) if colon and start.isdecimal() and end.isdecimal() else text


def _plain(value: Any) -> Any:
    """Return a value JSON can hold; missing numbers are null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
