r"""Read and write Audacity label tracks, a format that scaper and sed_eval also use for their text files.

Each label is a line with its start and end in seconds and its text, separated by tabs. A second line may give the
frequency band: a backslash, then the low and the high frequency in Hz, with -1 for an undefined limit.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.files import Parsed, one_clip, parsed, read_text, write_text
from attnviz.events.numbers import as_number, as_seconds, check_one_mark
from attnviz.events.table import event_table
from attnviz.io.paths import FilePath

_CONTINUED = "\\"
_UNDEFINED = -1.0
_NEEDED = "expected start, end and text, separated by tabs, with times in seconds (1.5) or as clock times (0:01.5)"


@public
def write_audacity(table: pd.DataFrame, path: FilePath) -> None:
    r"""Write the events of one clip as an Audacity label track.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table of one clip. Only times, labels and known frequency bands are written, because a label
        track cannot store the name of the clip, spans or additional columns.
    path : path-like
        Output file. An existing file is replaced atomically.

    Raises
    ------
    EventsError
        If `table` is not an event table, or contains several clips, a row without times (a label track cannot
        represent a clip without events), or a label with a tab or a line break.
    OutputError
        If the file cannot be written.
    """
    frame = event_table(table)
    one_clip(frame, "an Audacity label track")
    lines = []
    for row, event in frame.iterrows():
        label, onset, offset = event["label"], float(event["onset"]), float(event["offset"])
        if math.isnan(onset):
            raise EventsError(f"row {row} has no times; a label track cannot represent a clip without events.")
        if any(mark in label for mark in "\t\r\n"):
            raise EventsError(f"row {row}: the label {label!r} contains a tab or a line break.")
        lines.append(f"{onset!r}\t{offset!r}\t{label}\n")
        if "low" in frame.columns and not math.isnan(event["low"]):
            lines.append(f"{_CONTINUED}\t{float(event['low'])!r}\t{float(event['high'])!r}\n")
    write_text(path, "".join(lines))


@public
def read_audacity(path: FilePath, *, clip: str | None = None) -> pd.DataFrame:
    """Read an Audacity label track, or a text file of scaper or sed_eval.

    Parameters
    ----------
    path : path-like
        Input file. Times are seconds with a decimal point or comma, or clock times such as ``0:01.5``.
    clip : str, optional
        Name of the clip, which the file does not contain. By default, the name of the file without its suffix.

    Returns
    -------
    pandas.DataFrame
        An event table, with `low` and `high` if any label has a band. An undefined lower limit becomes 0 Hz. A
        band of zero width or without an upper limit becomes NaN.

    Raises
    ------
    EventsError
        If the file does not exist, is not a label track, or contains an invalid field. The message gives the
        file and the line.
    """
    return parse_audacity(read_text(path), path, clip).table


def parse_audacity(text: str, path: FilePath, clip: str | None = None) -> Parsed:
    """Return the events of a label track."""
    name = Path(path).stem if clip is None else clip
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    times: list[str] = []
    for number, ending in enumerate(text.split("\n"), start=1):
        line = ending.removesuffix("\r")
        if line.startswith(_CONTINUED):
            if not rows or lines[-1] != number - 1:
                raise EventsError(f"{path}: line {number} gives a frequency band but does not follow a label.")
            rows[-1] |= _band(line, path, number)
        elif line.strip():
            rows.append({"clip": name} | _label(line, path, number))
            lines.append(number)
            times += line.split("\t")[:2] if line.count("\t") > 1 else line.split("\t")[:1]
    check_one_mark(times, path)
    banded = any("low" in row for row in rows)
    if banded:
        rows = [{"low": None, "high": None} | row for row in rows]
    return parsed(rows, path, lambda row: f"line {lines[row]}")


def starts_as_label(line: str) -> bool:
    """Return whether a line begins with a time and a tab, as a label does."""
    start, tab, _ = line.partition("\t")
    return bool(tab) and as_seconds(start) is not None


def _label(line: str, path: FilePath, number: int) -> dict[str, object]:
    start, *rest = line.split("\t")
    onset = as_seconds(start)
    if onset is None or not rest:
        raise EventsError(f"{path}: line {number} is {line[:60]!r}; {_NEEDED}.")
    offset = as_seconds(rest[0])
    if offset is None and len(rest) == 1 and not rest[0][:1].isdigit() and rest[0][:1] not in ("", "-", "+", "."):
        return {"label": rest[0], "onset": onset, "offset": onset}  # point label written by Audacity 1
    if offset is None:
        raise EventsError(f"{path}: line {number}: the end is {rest[0][:40]!r}, which is not a time; {_NEEDED}.")
    if len(rest) > 2:
        raise EventsError(
            f"{path}: line {number} is {line[:60]!r}, with {len(rest) + 1} fields; {_NEEDED}. Does the "
            "label contain a tab? Replace it by a space."
        )
    return {"label": rest[1] if len(rest) > 1 else "", "onset": onset, "offset": offset}


def _band(line: str, path: FilePath, number: int) -> dict[str, object]:
    cells = [as_number(cell) for cell in line.split("\t")[1:]]
    if len(cells) != 2 or None in cells:
        raise EventsError(
            f"{path}: line {number} is {line[:60]!r}; a frequency band needs a low and a high limit in Hz."
        )
    low, high = (0.0 if cell is None else cell for cell in cells)
    if high in (_UNDEFINED, low):
        return {"low": None, "high": None}
    return {"low": 0.0 if low == _UNDEFINED else low, "high": high}
