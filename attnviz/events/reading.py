"""Read an event file of any supported format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
import pandas as pd

from attnviz.arguments import public
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


@public
def read_events(
    path: FilePath, *, clip: FilePath | None = None, seconds: Seconds | None = None, format: Format | None = None
) -> pd.DataFrame:
    """Read the sound events of a file of any supported format.

    Parameters
    ----------
    path : path-like
        Text file in UTF-8 or UTF-16, optionally compressed with gzip:

        - TSV or CSV with a header: DESED, AudioSet-strong and other column names (`read_tsv`);
        - Audacity label track, or text file of scaper or sed_eval (`read_audacity`);
        - JAMS, including scaper soundscapes (`read_jams`);
        - AudioGrounding, versions 1 and 2 (`read_audiogrounding`);
        - Raven selection table (`read_raven`);
        - Praat TextGrid (`read_textgrid`).

        Times are seconds with a decimal point or comma (the same throughout the file), times with a unit
        (``1.5s``, ``1500 ms``), or clock times (``0:01.5``, ``1:00:01.5``). Any other field is an error that gives
        the file and the line.
    clip : str or path-like, optional
        Read the events of this clip only. Give its name in any of the forms that data sets use (``ID_30.wav`` is
        ``YID_30.000_40.000.wav``), or the path of its audio. Rows keep the name given in the file. Label tracks,
        TextGrids and tables without a clip column contain no names; for these, `clip` becomes the name, which by
        default is the name of the file without its suffix.
    seconds : float or mapping of str to float, optional
        Length of the clip in seconds, or a mapping from clip to length. By default, lengths are taken from the
        names of clips.
    format : {"tsv", "csv", "audiogrounding", "audacity", "jams", "raven", "textgrid"}, optional
        Format of the file. By default, it is detected from the content.

    Returns
    -------
    pandas.DataFrame
        An event table (`attnviz.events` lists its columns) after `fit_to_clips`. AudioGrounding adds `span`,
        `caption`, `phrase_id` and `audiocap_id`. ``attrs["counts"]`` contains the counts of `fit_to_clips`, and
        ``attrs["format"]`` the format.

    Raises
    ------
    EventsError
        If the file cannot be read, has another format, contains an invalid time, span or clip, or does not contain
        `clip`. The message gives the file and the line, and the likely format.

    Warns
    -----
    AttnVizWarning
        If offsets were clipped, or if events have zero length or clips have no events. The message gives the
        counts.
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
    warn_of_counts(table, str(path))
    return table


def _checked_format(text: str, path: FilePath, wanted: str | None) -> str:
    if wanted is not None and wanted not in FORMATS:
        raise EventsError(f"format is {wanted!r}; expected one of {list(FORMATS)}.")
    seen = _looks_like(text)
    if wanted is not None:
        if seen is not None and seen != wanted:
            raise EventsError(f"{path} cannot be read as {wanted}; it looks like {seen}.")
        return wanted
    suffix = Path(path).with_suffix("").suffix if Path(path).suffix == ".gz" else Path(path).suffix
    kind = seen or _SUFFIXES.get(suffix.lower())  # for unclear content, the reader reports the problem
    if kind is None:
        raise EventsError(
            f"{path} is not a known event file: it begins {text.lstrip()[:60]!r}. Formats: {list(FORMATS)}."
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
