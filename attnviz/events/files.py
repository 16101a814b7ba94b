"""Read and write the text of event files: UTF-8 or UTF-16, optionally compressed; writing is atomic."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.table import Place, checked_table
from attnviz.io import json_files
from attnviz.io.paths import FilePath, checked_path
from attnviz.io.storage import write_whole

_GZIP = b"\x1f\x8b"
_BEGINNINGS = {  # file types that users pass by mistake
    b"RIFF": "a WAV audio file",
    b"fLaC": "a FLAC audio file",
    b"OggS": "an OGG audio file",
    b"ID3": "an MP3 audio file",
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx)",
    b"\x89PNG": "a PNG image",
    b"\x89HDF": "an HDF5 file",
}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Parsed:
    """An event table, the position of each row in its file, and whether the file names its clips."""

    table: pd.DataFrame
    place: Place
    names_clips: bool = True


def read_text(path: FilePath) -> str:
    """Return the text of a file, decompressing gzip.

    Raises
    ------
    EventsError
        If the file cannot be read, is empty, or is neither UTF-8 nor UTF-16 with a byte-order mark. The message
        names the likely file type.
    """
    try:
        content = checked_path(path, "the path of an event file", EventsError).read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise EventsError(f"events cannot be read from {path}: {reason}.") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if wide else "UTF-8"
        raise EventsError(f"events cannot be read from {path}: it is not {kind} text{_looks(content)}.") from error
    if not text.strip("\0 \t\r\n"):
        raise EventsError(f"events cannot be read from {path}: the file is empty.")
    return text


def parse_json(text: str, path: FilePath) -> Any:
    """Return the content of a JSON file, or raise :class:`EventsError`."""
    content = json_files.parse_json(text, path, error=EventsError, constants=True)  # JAMS writes NaN
    again = json.dumps(content, ensure_ascii=False) if "\\u" in text else ""
    if _LONE_SURROGATE.search(again):
        raise EventsError(f"{path} contains half a Unicode character (a lone surrogate), which is not valid text.")
    return content


def parsed(
    rows: pd.DataFrame | Iterable[Mapping[str, Any]], path: FilePath, place: Place, *, names_clips: bool = True
) -> Parsed:
    """Check the rows of a file and return their table; error messages give the file and the position."""
    try:
        return Parsed(checked_table(rows, place), place, names_clips)
    except EventsError as error:
        raise EventsError(f"{path}: {error}") from error


def write_text(path: FilePath, text: str) -> None:
    """Write an event file in UTF-8 atomically."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EventsError(
            f"{path} cannot be written: a text contains half a Unicode character: {error}."
        ) from error
    write_whole(path, content)


def one_clip(table: pd.DataFrame, kind: str) -> str:
    """Return the name of the only clip of a table, for file formats that describe one clip."""
    clips = sorted(set(table["clip"]))
    if len(clips) != 1:
        raise EventsError(f"{kind} describes one clip; the table has {len(clips)}: {clips[:5]}.")
    return str(clips[0])


def _looks(content: bytes) -> str:
    kind = next((kind for begin, kind in _BEGINNINGS.items() if content.startswith(begin)), None)
    return "" if kind is None else f"; it looks like {kind}"
