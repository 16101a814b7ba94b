"""Read selection tables of Raven (Cornell Lab of Ornithology): tab-separated, one line per selection and view."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.delimited import column_name, read_cells
from attnviz.events.files import Parsed, parsed, read_text
from attnviz.io.paths import FilePath

_TIMES = {"begin_time": "onset", "end_time": "offset"}
_BAND = {"low_freq": "low", "high_freq": "high"}
_CLIP, _OFFSET, _SELECTION, _VIEW = "begin_file", "file_offset", "selection", "view"
_LABELS = ("annotation", "species", "label", "class", "call_type", "event", "name")


@public
def read_raven(path: FilePath, *, clip: str | None = None) -> pd.DataFrame:
    """Read a Raven Pro or Raven Lite selection table.

    Parameters
    ----------
    path : path-like
        The ``.txt`` file, with the columns ``Selection``, ``Begin Time (s)``, ``End Time (s)`` and a label column:
        ``Annotation``, ``Species``, ``Label``, ``Class``, ``Call Type``, ``Event`` or ``Name``.
    clip : str, optional
        Name of the clip if the table has no column ``Begin File``. By default, the name of the file without its
        suffix.

    Returns
    -------
    pandas.DataFrame
        An event table, with `low` and `high` if the table has frequencies. A selection listed for several views is
        one event. If the table has ``Begin File`` and ``File Offset (s)``, times are measured from the start of
        the file in which the selection begins; Raven measures them from the start of the first file.

    Raises
    ------
    EventsError
        If the file does not exist, a column is missing, selections of several files have no ``File Offset (s)``,
        or a value is invalid. The message gives the file and the line.
    """
    return parse_raven(read_text(path), path, clip).table


def looks_like_raven(header: str) -> bool:
    """Return whether a line is the header of a selection table."""
    names = {column_name(name) for name in header.split("\t")}
    return {_SELECTION, *_TIMES} <= names


def parse_raven(text: str, path: FilePath, clip: str | None = None) -> Parsed:
    """Return the events of a selection table."""
    cells = read_cells(text, path, "\t")
    plain = [column_name(name) for name in cells.names]
    label = next((name for name in _LABELS if name in plain), None)
    missing = [name for name in (_SELECTION, *_TIMES) if name not in plain]
    if missing or label is None:
        raise EventsError(
            f"{path} has the columns {cells.names[:12]}; a Raven selection table has Selection, Begin Time (s), "
            f"End Time (s) and one label column: {', '.join(_LABELS)}."
        )
    known = {**_TIMES, **_BAND, _CLIP: "clip", label: "label", _OFFSET: _OFFSET, _SELECTION: _SELECTION}
    columns = [known.get(name, original) for name, original in zip(plain, cells.names, strict=True)]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise EventsError(f"{path} has more than one column for each of {twice}: {cells.names[:12]}.")
    frame = cells.frame(path, columns)
    cells.read_numbers(frame, path, (*_TIMES.values(), _OFFSET))
    begins = frame.pop(_OFFSET) if _OFFSET in columns else None
    named = "clip" in columns
    if not named:
        frame["clip"] = Path(path).stem if clip is None else clip
    elif begins is not None:
        frame["onset"], frame["offset"] = begins, begins + (frame["offset"] - frame["onset"])
    elif frame["clip"].nunique() > 1:
        raise EventsError(
            f"{path} has selections of {frame['clip'].nunique()} files, with times measured from the start of the "
            "first file. Export the column File Offset (s) as well."
        )
    if {"low", "high"} <= set(columns):
        empty = ~(frame["low"].astype(float) < frame["high"].astype(float))
        frame.loc[empty, ["low", "high"]] = math.nan
    else:
        frame = frame.drop(columns=[name for name in ("low", "high") if name in columns])
    first = ~frame.duplicated([_SELECTION, "clip", "onset", "offset", "label"]).to_numpy()
    lines = [line for line, kept in zip(cells.lines, first, strict=True) if kept]
    kept = frame[first].drop(columns=[name for name in frame if column_name(str(name)) in (_SELECTION, _VIEW)])
    return parsed(kept.reset_index(drop=True), path, lambda row: f"line {lines[row]}", names_clips=named)
