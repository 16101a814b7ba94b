r"""Event tables as label tracks: Audacity's, and the text files of scaper and sed_eval, which are the same.

A line a label: start and end in seconds and the text, separated by tabs. A second line, which begins with a
backslash, may give the band: ``\``, low and high in Hz, -1 where that side is undefined.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.files import Parsed, one_clip, parsed, read_text, write_text
from attnviz.events.numbers import as_number, as_seconds, check_one_mark
from attnviz.events.table import event_table
from attnviz.io.paths import FilePath

_CONTINUED = "\\"
_UNDEFINED = -1.0
_NEEDED = "a label has a start, an end and a text, separated by tabs; times are seconds, 1.5, or a clock's, 0:01.5"


def write_audacity(table: pd.DataFrame, path: FilePath) -> None:
    r"""Write the events of one clip as an Audacity label track.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table of one clip. Its times, labels and, where known, bands are written: a label track has no
        place for the clip's name, spans and further columns.
    path : path-like
        The file; replaced where it exists, whole or not at all.

    Raises
    ------
    EventsError
        `table` is not an event table, or holds several clips, a row without times (a label track cannot say
        that a clip has no events), or a label with a tab or a line break.
    OutputError
        The file cannot be written.
    """
    frame = event_table(table)
    one_clip(frame, "an Audacity label track")
    lines = []
    for row, event in frame.iterrows():
        label, onset, offset = event["label"], float(event["onset"]), float(event["offset"])
        if math.isnan(onset):
            raise EventsError(f"row {row} has no times; a label track cannot say that a clip has no events.")
        if any(mark in label for mark in "\t\r\n"):
            raise EventsError(f"row {row}: the label {label!r} has a tab or a line break; a label track cannot.")
        lines.append(f"{onset!r}\t{offset!r}\t{label}\n")
        if "low" in frame.columns and not math.isnan(event["low"]):
            lines.append(f"{_CONTINUED}\t{float(event['low'])!r}\t{float(event['high'])!r}\n")
    write_text(path, "".join(lines))


def read_audacity(path: FilePath, *, clip: str | None = None) -> pd.DataFrame:
    """Read an Audacity label track, or a text file of scaper or sed_eval.

    Parameters
    ----------
    path : path-like
        The file. Times are seconds with a decimal point or comma, or a clock's, ``0:01.5``.
    clip : str, optional
        Name of the clip, which the file does not say; left out: the file's own name without its ending.

    Returns
    -------
    pandas.DataFrame
        An event table; `low` and `high` where any label has a band. A low end that is undefined is 0 Hz. A band
        of no width, or without an upper end, is no band: NaN.

    Raises
    ------
    EventsError
        No such file, no label track, or a field that cannot be; with the file and its line.
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
                raise EventsError(f"{path}: line {number} gives a band and follows no label.")
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
    """Say whether a line begins with a time and a tab, as a label does."""
    start, tab, _ = line.partition("\t")
    return bool(tab) and as_seconds(start) is not None


def _label(line: str, path: FilePath, number: int) -> dict[str, object]:
    start, *rest = line.split("\t")
    onset = as_seconds(start)
    if onset is None or not rest:
        raise EventsError(f"{path}: line {number} is {line[:60]!r}; {_NEEDED}.")
    offset = as_seconds(rest[0])
    if offset is None and len(rest) == 1 and not rest[0][:1].isdigit() and rest[0][:1] not in ("", "-", "+", "."):
        return {"label": rest[0], "onset": onset, "offset": onset}  # a point, as Audacity 1 wrote it
    if offset is None:
        raise EventsError(f"{path}: line {number}: the end is {rest[0][:40]!r}, which is no time; {_NEEDED}.")
    if len(rest) > 2:
        raise EventsError(
            f"{path}: line {number} is {line[:60]!r}, with {len(rest) + 1} fields; {_NEEDED}. Has the label a "
            "tab in it? Put a space there."
        )
    return {"label": rest[1] if len(rest) > 1 else "", "onset": onset, "offset": offset}


def _band(line: str, path: FilePath, number: int) -> dict[str, object]:
    cells = [as_number(cell) for cell in line.split("\t")[1:]]
    if len(cells) != 2 or None in cells:
        raise EventsError(f"{path}: line {number} is {line[:60]!r}; a band has a low and a high frequency in Hz.")
    low, high = (0.0 if cell is None else cell for cell in cells)
    if high in (_UNDEFINED, low):
        return {"low": None, "high": None}
    return {"low": 0.0 if low == _UNDEFINED else low, "high": high}
