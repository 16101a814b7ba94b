"""Read and write JAMS files, which describe one clip each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.files import Parsed, one_clip, parse_json, parsed, read_text, write_text
from attnviz.events.table import event_table, shown
from attnviz.io.paths import FilePath

_JAMS_VERSION = "0.3.5"
_NAMESPACE = "segment_open"
_SCAPER = "scaper"


@public
def write_jams(table: pd.DataFrame, path: FilePath, *, seconds: float) -> None:
    """Write the events of one clip as a JAMS file.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table of one clip.
    path : path-like
        Output file. An existing file is replaced atomically.
    seconds : float
        Length of the clip, in seconds.

    Raises
    ------
    EventsError
        If `table` is not an event table, does not contain exactly one clip, or contains a value that JSON cannot
        represent.
    OutputError
        If the file cannot be written.

    Notes
    -----
    The file contains one annotation in the namespace ``segment_open`` (an interval with a text), which every JAMS
    reader supports. JAMS 0.3.5 does not include ``sound_event``, the namespace of older sound event files.
    Segments are sorted by onset. The sandbox of the annotation has one record per segment with the values that a
    segment cannot store (span, frequency band, additional columns). Rows without times are omitted.
    """
    frame = event_table(table)
    clip = one_clip(frame, "a JAMS file")
    frame = frame[frame["onset"].notna()].sort_values("onset", kind="stable")
    data = [
        {"time": row["onset"], "duration": row["offset"] - row["onset"], "value": row["label"], "confidence": None}
        for _, row in frame.iterrows()
    ]
    extra = frame.drop(columns=["clip", "label", "onset"])  # keeps offset: onset + duration may round
    records = [{str(name): _plain(value) for name, value in row.items()} for _, row in extra.iterrows()]
    content = {
        "annotations": [
            {
                "annotation_metadata": {"annotation_tools": "attnviz", "data_source": "program"},
                "namespace": _NAMESPACE,
                "data": data,
                "sandbox": {"records": records},
                "time": 0.0,
                "duration": float(seconds),
            }
        ],
        "file_metadata": {"title": clip, "duration": float(seconds), "jams_version": _JAMS_VERSION},
        "sandbox": {},
    }
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise EventsError(
            f"{path} cannot be written: JSON cannot represent a value of the table: {error}."
        ) from error
    write_text(path, text)


@public
def read_jams(path: FilePath) -> pd.DataFrame:
    """Read the ``segment_open`` annotations of a JAMS file, or its ``scaper`` annotations if it has none.

    From a scaper soundscape, read the foreground events only, as in the text file that scaper writes beside it.
    The background sounds throughout the clip.

    Returns
    -------
    pandas.DataFrame
        An event table. A file written by :func:`write_jams` gives the original rows, sorted by onset. A file
        without segments gives one row without times.

    Raises
    ------
    EventsError
        If the file does not exist, is not JAMS, has no annotation in these namespaces, or contains an invalid
        value.
    """
    return parse_jams(read_text(path), path).table


def parse_jams(text: str, path: FilePath, clip: str | None = None) -> Parsed:
    """Return the events of a JAMS text."""
    content = parse_json(text, path)
    try:
        title = _text(content["file_metadata"].get("title") or "")
        names = [_text(one["namespace"]) for one in content["annotations"]]
        wanted, read = (_NAMESPACE, _segments) if _NAMESPACE in names else (_SCAPER, _soundscape)
        found = [one for one in content["annotations"] if one["namespace"] == wanted]
        rows = [row for annotation in found for row in read(annotation)]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise EventsError(f"{path} is not a JAMS file: {type(error).__name__}: {error}.") from error
    if not found:
        raise EventsError(f"{path} has no {_NAMESPACE} or {_SCAPER} annotation; it has {sorted(set(names))}.")
    if not rows:
        rows = [{"label": "", "onset": None, "offset": None}]
    name = title or (Path(path).stem if clip is None else clip)
    rows = [{"clip": name} | row for row in rows]
    return parsed(rows, path, lambda row: f"segment {row + 1}", names_clips=bool(title))


def _segments(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    data = annotation["data"]
    records = (annotation.get("sandbox") or {}).get("records") or []
    extras = records if len(records) == len(data) else [{}] * len(data)
    rows = []
    for item, extra in zip(data, extras, strict=True):
        onset, duration = (None if item[name] is None else float(item[name]) for name in ("time", "duration"))
        offset = None if onset is None or duration is None else onset + duration
        row = {"onset": onset, "offset": offset} | extra | {"onset": onset, "label": _text(item["value"])}
        row.pop("clip", None)
        if row.get("span") is not None:
            row["span"] = tuple(row["span"])
        rows.append(row)
    return rows


def _soundscape(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for item in annotation["data"]:
        onset, duration, value = float(item["time"]), float(item["duration"]), item["value"]
        if _text(value["role"]) == "foreground":
            rows.append({"label": _text(value["label"]), "onset": onset, "offset": onset + duration})
    return rows


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} found where text is expected")
    return value


def _plain(value: Any) -> Any:
    """Return a value that JSON can represent; missing numbers become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return list(value) if isinstance(value, tuple) else value
