"""Read and write event tables as TSV and CSV, in the column layouts of DESED and AudioSet-strong."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.files import Parsed, parsed, read_text, write_text
from attnviz.events.numbers import as_number, as_seconds, check_one_mark
from attnviz.events.table import REQUIRED, event_table
from attnviz.io.paths import FilePath, checked_path

_FIRST = ("filename", "onset", "offset", "event_label")  # the layout of DESED, used for writing
_DESED = {"filename": "clip", "event_label": "label"}
_AUDIOSET = {"segment_id": "clip", "start_time_seconds": "onset", "end_time_seconds": "offset"}
_STYLES: tuple[dict[str, str], ...] = (_DESED, _AUDIOSET, {})  # the last: names of the event table
_ABSENT = "NOT_PRESENT"  # in the framed files of AudioSet-strong: annotators did not hear the class
_KINDS = {"\t": "tab-separated", ",": "comma-separated", ";": "semicolon-separated"}
_TIMES, _BAND = ("onset", "offset", "duration"), ("low", "high")
_MISSING = ("", "nan", "na", "n/a")
_UNIT = re.compile(r"\s*[(\[](\w+)[)\]]\s*$")
_SCALES = {"ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "min": 60.0, "khz": 1e3}
_KNOWN = {  # other common column names in lower case; the first that is present is used
    "clip": ("clip", "filename", "file_name", "file", "audio_file", "audio_filename", "audio", "segment_id"),
    "label": (
        "label",
        "event_label",
        "event",
        "class",
        "annotation",
        "text",
        "name",
        "tag",
        "category",
        "species",
    ),
    "onset": ("onset", "start", "start_time", "start_time_seconds", "begin", "begin_time", "onset_time"),
    "offset": ("offset", "end", "end_time", "end_time_seconds", "stop", "stop_time", "offset_time"),
    "duration": ("duration", "event_duration"),
    "low": ("low", "low_freq", "low_frequency", "min_freq", "min_frequency"),
    "high": ("high", "high_freq", "high_frequency", "max_freq", "max_frequency"),
}


@public
def write_tsv(table: pd.DataFrame, path: FilePath) -> None:
    """Write an event table as tab-separated text, with the column names of DESED.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table.
    path : path-like
        Output file. An existing file is replaced atomically.

    Raises
    ------
    EventsError
        If `table` is not an event table, or an additional column has the name of a DESED column.
    OutputError
        If the file cannot be written.

    Notes
    -----
    The columns are ``filename``, ``onset``, ``offset`` and ``event_label``, followed by the other columns of the
    table. A span is written as ``start:end``. Numbers are written with enough digits to be read back exactly.
    """
    _write(table, path, "\t")


@public
def write_csv(table: pd.DataFrame, path: FilePath) -> None:
    """Write an event table as comma-separated text; see :func:`write_tsv`.

    Raises
    ------
    EventsError, OutputError
        As :func:`write_tsv`.
    """
    _write(table, path, ",")


@public
def read_tsv(path: FilePath) -> pd.DataFrame:
    """Read tab-separated events, with the rows unchanged.

    Parameters
    ----------
    path : path-like
        A file whose first line names its columns, in the layout of DESED (``filename``, ``onset``, ``offset``,
        ``event_label``), of AudioSet-strong (``segment_id``, ``start_time_seconds``, ``end_time_seconds``,
        ``label``) or of the event table. Other common names are also accepted, in upper or lower case:
        ``Start``, ``End Time (s)``, ``Duration``, ``File``, ``Class``, ``Low Freq (Hz)`` and others. Times are
        seconds with a decimal point or comma, times with a unit (``1.5s``, or a column ``Start (ms)``), or clock
        times (``0:01.5``). If no column names the clip, the clip is the name of the file without its suffix.
        Additional columns may appear in any order. The file may be compressed with gzip.

    Returns
    -------
    pandas.DataFrame
        An event table. Additional columns contain text.

    Raises
    ------
    EventsError
        If the file does not exist, lacks a column, or contains an invalid value. The message gives the file and,
        for a value, the line.
    """
    return parse_delimited(read_text(path), path, separator="\t").table


@public
def read_csv(path: FilePath) -> pd.DataFrame:
    """Read comma-separated or semicolon-separated events; see :func:`read_tsv`.

    Raises
    ------
    EventsError
        As :func:`read_tsv`.
    """
    return parse_delimited(read_text(path), path, separator=",").table


@public
def is_tsv(path: FilePath) -> bool:
    """Return whether a path is a file that starts with the header that :func:`write_tsv` writes."""
    place, begin = checked_path(path, error=EventsError), "\t".join(_FIRST).encode()
    if not place.is_file():
        return False
    with place.open("rb") as file:
        return file.read(len(begin)) == begin


def parse_delimited(text: str, path: FilePath, clip: str | None = None, *, separator: str) -> Parsed:
    """Return the events of a text in columns."""
    table = read_cells(text, path, separator)
    columns = _columns(table.names, path, _KINDS[separator])
    frame = table.frame(path, columns)
    if "present" in columns and (frame["present"] == _ABSENT).any():
        line = table.lines[int((frame["present"] == _ABSENT).argmax())]
        raise EventsError(
            f"{path}: line {line} is marked {_ABSENT}. The file also lists classes that are absent, so its rows "
            "are not events. The events of AudioSet-strong are in the files without 'framed' in their names."
        )
    table.read_numbers(frame, path)
    if "duration" in columns and "offset" not in columns:
        frame["offset"] = frame["onset"] + frame.pop("duration")
    named = "clip" in columns
    if not named:
        frame["clip"] = Path(path).stem if clip is None else clip
    if "span" in columns:
        frame["span"] = pd.Series([_parse_span(cell) for cell in frame["span"]], dtype=object)
    return parsed(frame, path, lambda row: f"line {table.lines[row]}", names_clips=named)


@dataclass(frozen=True)
class Cells:
    """A table of text cells: column names from the header, rows, and the line on which each row begins."""

    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    def frame(self, path: FilePath, columns: list[str]) -> pd.DataFrame:
        """Return the rows as a table of text with the given column names."""
        for row, line in zip(self.rows, self.lines, strict=True):
            if len(row) > len(columns):
                raise EventsError(
                    f"{path}: line {line} has {len(row)} cells, but the header has {len(columns)}. Does a label "
                    "or number contain the separator? Put it in quotation marks, or separate the columns by tabs."
                )
            row.extend([""] * (len(columns) - len(row)))  # editors often strip trailing separators
        return pd.DataFrame(self.rows, columns=columns, dtype=str)

    def read_numbers(self, frame: pd.DataFrame, path: FilePath, times: tuple[str, ...] = _TIMES) -> None:
        """Convert times to seconds and frequencies to Hz, using the units given in the header."""
        timed = [name for name in times if name in frame.columns]
        check_one_mark((cell for name in timed for cell in frame[name]), path)
        for place, name in enumerate(frame.columns):
            if name in (*timed, *_BAND):
                scale = _SCALES.get(_unit(self.names[place]), 1.0)
                frame[name] = [
                    self._number(cell, name, line, path, scale)
                    for cell, line in zip(frame[name], self.lines, strict=True)
                ]

    def _number(self, cell: str, name: str, line: int, path: FilePath, scale: float) -> float | None:
        if cell.strip().lower() in _MISSING:
            return None
        number = as_number(cell) if name in _BAND else as_seconds(cell)
        if number is None:
            needed = "a frequency in Hz" if name in _BAND else "a time in seconds (1.5) or a clock time (0:01.5)"
            raise EventsError(f"{path}: line {line}: {name} is {cell[:40]!r}; expected {needed}.")
        return number * scale if scale != 1 else number


def column_name(name: str) -> str:
    """Return a normalised column name: lower case, words joined by ``_``, without the unit."""
    return re.sub(r"[\s_-]+", "_", _UNIT.sub("", name).strip().lower())


def _unit(name: str) -> str:
    found = _UNIT.search(name)
    return found[1].lower() if found else ""


def _columns(header: list[str], path: FilePath, kind: str) -> list[str]:
    """Return the event-table name of each column, or its original name if it has none."""
    names = [name.strip() for name in header]
    exact = next((style for style in _STYLES if {style.get(name, name) for name in names} >= set(REQUIRED)), None)
    if exact is not None:
        columns = [exact.get(name, name) for name in names]
    else:
        columns = list(names)
        plain = [column_name(name) for name in names]
        for meant, known in _KNOWN.items():
            chosen = next((name for name in known if name in plain), None)
            if chosen is not None:
                columns[plain.index(chosen)] = meant
    missing = [name for name in ("onset", "offset", "label") if name not in columns]
    if "duration" in columns and missing == ["offset"]:
        missing = []
    if missing:
        if any(as_seconds(name) is not None for name in names):
            raise EventsError(
                f"{path}: line 1 is {names[:8]}, which contains a number and is therefore not a header. The first "
                "line must name the columns, for example: filename, onset, offset, event_label."
            )
        wanted = "; ".join(f"{name} ({', '.join(_KNOWN[name][:4])})" for name in missing)
        raise EventsError(
            f"{path} has the columns {names[:12]}; missing: {wanted}. Is the first line a header, and is the file "
            f"{kind}?"
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise EventsError(f"{path} has more than one column for each of {twice}: {names[:12]}.")
    return columns


def read_cells(text: str, path: FilePath, separator: str) -> Cells:
    """Return the header, the rows that are not blank, and the line on which each row begins."""
    first = text.lstrip("\r\n").partition("\n")[0]
    if separator == "," and first.count(";") > first.count(","):
        separator = ";"  # spreadsheets use it in locales with a decimal comma
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
            f"{path} is not a {_KINDS[separator]} table: line {reader.line_num}: {error}. Is a closing "
            "quotation mark missing?"
        ) from error
    if not rows:
        raise EventsError(f"{path} is not a {_KINDS[separator]} table: it has no header.")
    return Cells(rows[0], rows[1:], lines[1:])


def _write(table: pd.DataFrame, path: FilePath, separator: str) -> None:
    ours = event_table(table)
    taken = [name for name in ours.columns if name in _DESED]
    if taken:
        raise EventsError(f"{path} cannot be written: the columns {taken} have names reserved for DESED columns.")
    frame = ours.rename(columns={column: name for name, column in _DESED.items()})
    if "span" in frame.columns:
        frame["span"] = ["" if span is None else f"{span[0]}:{span[1]}" for span in frame["span"]]
    others = [name for name in frame.columns if name not in _FIRST]
    frame = frame[[*_FIRST, *others]]
    text = frame.to_csv(None, sep=separator, index=False, lineterminator="\n")
    if "\r" in text:  # pandas does not quote it, but readers end a line there
        text = frame.to_csv(None, sep=separator, index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    write_text(path, text)


def _parse_span(text: str) -> tuple[int, int] | str | None:
    if not text:
        return None
    start, colon, end = text.partition(":")
    return (int(start), int(end)) if colon and _digits(start) and _digits(end) else text


def _digits(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
