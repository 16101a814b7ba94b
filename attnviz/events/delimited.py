"""Event tables as text in columns: TSV and CSV, as DESED and AudioSet-strong write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.files import FilePath, Parsed, parsed, read_text, write_text
from attnviz.events.table import REQUIRED, event_table

_FIRST = ("filename", "onset", "offset", "event_label")  # DESED's, which is what is written
_DESED = {"filename": "clip", "event_label": "label"}
_AUDIOSET = {"segment_id": "clip", "start_time_seconds": "onset", "end_time_seconds": "offset"}
_STYLES: tuple[dict[str, str], ...] = (_DESED, _AUDIOSET, {})  # the last: the names of the event table itself
_ABSENT = "NOT_PRESENT"  # in AudioSet-strong's framed files: the class was listened for, and is not there
_KINDS = {"\t": "tab-separated", ",": "comma-separated"}


def write_tsv(table: pd.DataFrame, path: FilePath) -> None:
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
        `table` is not an event table, or a further column of it has a name that DESED's columns have.
    OutputError
        The file cannot be written.

    Notes
    -----
    The columns are ``filename``, ``onset``, ``offset``, ``event_label``, then the table's others; a span is
    written ``start:end``. Numbers are written so that reading gives them back exactly.
    """
    _write(table, path, "\t")


def write_csv(table: pd.DataFrame, path: FilePath) -> None:
    """Write an event table as comma-separated text; otherwise as :func:`write_tsv`.

    Raises
    ------
    EventsError, OutputError
        As :func:`write_tsv`.
    """
    _write(table, path, ",")


def read_tsv(path: FilePath) -> pd.DataFrame:
    """Read tab-separated events, row by row as they stand.

    Parameters
    ----------
    path : path-like
        A file with the columns of DESED (``filename``, ``onset``, ``offset``, ``event_label``), of
        AudioSet-strong (``segment_id``, ``start_time_seconds``, ``end_time_seconds``, ``label``) or of the event
        table; further columns may follow, in any order. It may be compressed with gzip.

    Returns
    -------
    pandas.DataFrame
        An event table. Columns beyond the contract are text.

    Raises
    ------
    EventsError
        No such file, a column is missing, or a value cannot be; with the file and, for a value, its line.
    """
    return parse_delimited(read_text(path), path, "\t").table


def read_csv(path: FilePath) -> pd.DataFrame:
    """Read comma-separated events; otherwise as :func:`read_tsv`.

    Raises
    ------
    EventsError
        As :func:`read_tsv`.
    """
    return parse_delimited(read_text(path), path, ",").table


def is_tsv(path: FilePath) -> bool:
    """Say whether a path is a file that begins as :func:`write_tsv` begins one."""
    place, begin = Path(path), "\t".join(_FIRST).encode()
    if not place.is_file():
        return False
    with place.open("rb") as file:
        return file.read(len(begin)) == begin


def parse_delimited(text: str, path: FilePath, separator: str) -> Parsed:
    """Return the events of a text in columns."""
    kind = _KINDS[separator]
    header, rows, lines = _cells(text, path, separator)
    names = [name.strip() for name in header]
    styles = [style for style in _STYLES if {style.get(name, name) for name in names} >= set(REQUIRED)]
    if not styles:
        raise EventsError(
            f"{path} has the columns {names[:12]}; needed are those of DESED {list(_FIRST)}, of AudioSet-strong "
            f"{[*_AUDIOSET, 'label']} or {list(REQUIRED)}. Is the first line a header, and is the file {kind}?"
        )
    columns = [styles[0].get(name, name) for name in names]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise EventsError(f"{path} has more than one column for each of {twice}: {names[:12]}.")
    for row, line in zip(rows, lines, strict=True):
        if len(row) > len(columns):
            raise EventsError(f"{path}: line {line} has {len(row)} cells; the header has {len(columns)}.")
        row.extend([""] * (len(columns) - len(row)))  # trailing separators are often lost
    frame = pd.DataFrame(rows, columns=columns, dtype=str)
    if "present" in columns and (frame["present"] == _ABSENT).any():
        line = lines[int((frame["present"] == _ABSENT).argmax())]
        raise EventsError(
            f"{path}: line {line} says {_ABSENT}: the file lists what was not heard, too, and its rows are no "
            "events. AudioSet-strong's events are in the files without 'framed' in their name."
        )
    if "span" in columns:
        frame["span"] = pd.Series([_parse_span(cell) for cell in frame["span"]], dtype=object)
    return parsed(frame, path, lambda row: f"line {lines[row]}")


def _cells(text: str, path: FilePath, separator: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header, the rows that are not blank, and the line on which each begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines, before = [], [], 0
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(before + 1)
            before = reader.line_num
    except csv.Error as error:
        raise EventsError(
            f"{path} is not a {_KINDS[separator]} table: line {reader.line_num}: {error}. Is a quotation mark "
            "left open?"
        ) from error
    if not rows:
        raise EventsError(f"{path} is not a {_KINDS[separator]} table: it has no header.")
    return rows[0], rows[1:], lines[1:]


def _write(table: pd.DataFrame, path: FilePath, separator: str) -> None:
    ours = event_table(table)
    taken = [name for name in ours.columns if name in _DESED]
    if taken:
        raise EventsError(f"{path} cannot be written: DESED's columns {taken} are columns of the table, too.")
    frame = ours.rename(columns={column: name for name, column in _DESED.items()})
    if "span" in frame.columns:
        frame["span"] = ["" if span is None else f"{span[0]}:{span[1]}" for span in frame["span"]]
    others = [name for name in frame.columns if name not in _FIRST]
    frame = frame[[*_FIRST, *others]]
    text = frame.to_csv(None, sep=separator, index=False, lineterminator="\n")
    if "\r" in text:  # ends a line for the reader, and is not quoted by itself
        text = frame.to_csv(None, sep=separator, index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    write_text(path, text)


def _parse_span(text: str) -> tuple[int, int] | str | None:
    if not text:
        return None
    start, colon, end = text.partition(":")
    return (int(start), int(end)) if colon and _digits(start) and _digits(end) else text


def _digits(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
