r"""Event tables as Audacity label tracks.

A line a label: start and end in seconds and the text, separated by tabs. A second line, which begins with a
backslash, may give the band: ``\``, low and high in Hz, -1 where that side is undefined.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.files import FilePath, Parsed, one_clip, parsed, read_text, write_text
from attnviz.events.table import event_table

_CONTINUED = "\\"
_UNDEFINED = -1.0


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
    """Read an Audacity label track.

    Parameters
    ----------
    path : path-like
        The file that Audacity exported.
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
        No such file, no label track, or a value that cannot be; with the file and its line.
    """
    return parse_audacity(read_text(path), path, clip).table


def parse_audacity(text: str, path: FilePath, clip: str | None = None) -> Parsed:
    """Return the events of a label track."""
    name = Path(path).stem if clip is None else clip
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    for number, ending in enumerate(text.split("\n"), start=1):
        line = ending.removesuffix("\r")
        if line.startswith(_CONTINUED):
            if not rows or lines[-1] != number - 1:
                raise EventsError(f"{path}: line {number} gives a band and follows no label.")
            rows[-1] |= _band(line, path, number)
        elif line.strip():
            rows.append({"clip": name} | _label(line, path, number))
            lines.append(number)
    banded = any("low" in row for row in rows)
    if banded:
        rows = [{"low": None, "high": None} | row for row in rows]
    return parsed(rows, path, lambda row: f"line {lines[row]}")


def starts_as_label(line: str) -> bool:
    """Say whether a line begins with a time and a tab, as a label does."""
    start, tab, _ = line.partition("\t")
    return bool(tab) and _float(start) is not None


def _label(line: str, path: FilePath, number: int) -> dict[str, object]:
    start, *rest = line.split("\t", 2)
    onset = _float(start)
    if onset is None or not rest:
        raise EventsError(
            f"{path}: line {number} is {line[:60]!r}; a label has a start and an end in seconds and a text, "
            "separated by tabs."
        )
    offset = _float(rest[0])
    if offset is None:  # a label at a point may have one time only
        return {"label": "\t".join(rest), "onset": onset, "offset": onset}
    return {"label": rest[1] if len(rest) > 1 else "", "onset": onset, "offset": offset}


def _band(line: str, path: FilePath, number: int) -> dict[str, object]:
    cells = [_float(cell) for cell in line.split("\t")[1:]]
    if len(cells) != 2 or None in cells:
        raise EventsError(f"{path}: line {number} is {line[:60]!r}; a band has a low and a high frequency in Hz.")
    low, high = (0.0 if cell is None else cell for cell in cells)
    if high in (_UNDEFINED, low):
        return {"low": None, "high": None}
    return {"low": 0.0 if low == _UNDEFINED else low, "high": high}


def _float(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
