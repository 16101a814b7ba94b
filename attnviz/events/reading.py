"""One way to read an event file of any known format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.audacity import parse_audacity, starts_as_label
from attnviz.events.audiogrounding import parse_audiogrounding
from attnviz.events.clips import clip_named
from attnviz.events.delimited import parse_delimited
from attnviz.events.files import Parsed, parse_json, read_text
from attnviz.events.jams import parse_jams
from attnviz.events.limits import Seconds, fitted_table, warn_of_counts
from attnviz.events.raven import looks_like_raven, parse_raven
from attnviz.events.textgrid import looks_like_textgrid, parse_textgrid
from attnviz.io.paths import FilePath

Format = Literal["tsv", "csv", "audiogrounding", "audacity", "jams", "raven", "textgrid"]

_PARSERS: dict[str, Callable[[str, FilePath, str | None], Parsed]] = {
    "tsv": partial(parse_delimited, separator="\t"),
    "csv": partial(parse_delimited, separator=","),
    "audiogrounding": lambda text, path, _: parse_audiogrounding(text, path),
    "audacity": parse_audacity,
    "jams": parse_jams,
    "raven": parse_raven,
    "textgrid": parse_textgrid,
}
FORMATS = tuple(_PARSERS)
_SUFFIXES = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jams": "jams",
    ".txt": "audacity",
    ".json": "audiogrounding",
    ".textgrid": "textgrid",
}


def read_events(
    path: FilePath, *, clip: FilePath | None = None, seconds: Seconds | None = None, format: Format | None = None
) -> pd.DataFrame:
    """Read the sound events of a file, whatever its format.

    Parameters
    ----------
    path : path-like
        Text in UTF-8 or UTF-16, plain or compressed with gzip:

        - TSV or CSV with a header: DESED, AudioSet-strong, and other names of columns (`read_tsv`);
        - an Audacity label track, or a text file of scaper or sed_eval (`read_audacity`);
        - JAMS, scaper's too (`read_jams`);
        - AudioGrounding, versions 1 and 2 (`read_audiogrounding`);
        - a selection table of Raven (`read_raven`);
        - a TextGrid of Praat (`read_textgrid`).

        Times are seconds with a decimal point or comma (one of them throughout), with a unit (``1.5s``,
        ``1500 ms``), or a clock's (``0:01.5``, ``1:00:01.5``). A field that is anything else is an error, with
        the file and the line.
    clip : str or path-like, optional
        The one clip whose events are wanted: its name, in any of the forms that data sets give it (``ID_30.wav``
        is ``YID_30.000_40.000.wav``), or the path of its audio. Rows keep the name that the file gives. Label
        tracks, TextGrids and tables without a column of clips name none; there this is the name, or else the
        file's own without its ending.
    seconds : float or mapping of str to float, optional
        Length of the clip, or clip -> length; left out: what names of clips tell.
    format : {"tsv", "csv", "audiogrounding", "audacity", "jams", "raven", "textgrid"}, optional
        Left out: what the file's content looks like.

    Returns
    -------
    pandas.DataFrame
        An event table (`attnviz.events` lists its columns), settled as `fit_to_clips` does. AudioGrounding adds
        `span`, `caption`, `phrase_id` and `audiocap_id`. ``attrs["counts"]`` tells what was settled, and
        ``attrs["format"]`` the format.

    Raises
    ------
    EventsError
        The file cannot be read, is of another format (the message says what it looks like), holds a time, span
        or clip that cannot be, or does not know `clip`; with the file and the line.

    Warns
    -----
    AttnVizWarning
        How many ends were clipped, events have no length, and clips no events, if any.
    """
    text = read_text(path)
    kind = _checked_format(text, path, format)
    name = None if clip is None else PurePath(clip).name
    found = _PARSERS[kind](text, path, name)
    rows = np.arange(len(found.table))
    try:
        if name is not None and found.names_clips:
            wanted = clip_named(name, list(dict.fromkeys(found.table["clip"])))
            rows = np.flatnonzero(found.table["clip"] == wanted)
        kept = found.table.iloc[rows].reset_index(drop=True)
        table = fitted_table(kept, seconds, lambda row: found.place(int(rows[row])))
    except EventsError as error:
        raise EventsError(f"{path}: {error}") from error
    table.attrs["format"] = kind
    warn_of_counts(table, str(path), stacklevel=3)
    return table


def _checked_format(text: str, path: FilePath, wanted: str | None) -> str:
    if wanted is not None and wanted not in FORMATS:
        raise EventsError(f"format is {wanted!r}; one of {list(FORMATS)} is needed.")
    seen = _looks_like(text)
    if wanted is not None:
        if seen is not None and seen != wanted:
            raise EventsError(f"{path} was to be read as {wanted}; it looks like {seen}.")
        return wanted
    suffix = Path(path).with_suffix("").suffix if Path(path).suffix == ".gz" else Path(path).suffix
    kind = seen or _SUFFIXES.get(suffix.lower())  # where the content does not tell, the reader says what is wrong
    if kind is None:
        raise EventsError(
            f"{path} looks like no event file: it begins {text.lstrip()[:60]!r}. Known are {list(FORMATS)}."
        )
    return kind


def _looks_like(text: str) -> str | None:
    first = text.lstrip("\r\n").partition("\n")[0]
    if first.lstrip()[:1] in ("{", "["):
        return _json_kind(text)
    if looks_like_textgrid(text):
        return "textgrid"
    if starts_as_label(first):
        return "audacity"
    if "\t" in first:
        return "raven" if looks_like_raven(first) else "tsv"
    return "csv" if "," in first or ";" in first else None


def _json_kind(text: str) -> str | None:
    try:
        content = parse_json(text, "the file")
    except EventsError:
        return None
    if isinstance(content, dict):
        return "jams" if "annotations" in content else "audiogrounding" if "soundtag" in content else None
    listed = bool(content) and isinstance(content[0], dict) and "phrases" in content[0]
    return "audiogrounding" if listed else None
