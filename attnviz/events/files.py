"""Event files in and out: text in UTF-8, perhaps compressed, read whole and written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.table import Place, checked_table
from attnviz.io.storage import write_whole

FilePath = str | os.PathLike[str]

_GZIP = b"\x1f\x8b"
_BEGINNINGS = {  # files that are taken for event files by mistake
    b"RIFF": "a WAV audio file",
    b"fLaC": "a FLAC audio file",
    b"OggS": "an OGG audio file",
    b"ID3": "an MP3 audio file",
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx)",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"\x89PNG": "a PNG image",
    b"\x89HDF": "an HDF5 file",
}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Parsed:
    """An event table, and where in its file each row stands."""

    table: pd.DataFrame
    place: Place


def read_text(path: FilePath) -> str:
    """Return the text of a file, unpacked where it is compressed with gzip.

    Raises
    ------
    EventsError
        The file cannot be read, is empty or is no UTF-8 text; with what it looks like instead.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise EventsError(f"events cannot be read from {path}: {reason}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EventsError(f"events cannot be read from {path}: it is not UTF-8 text{_looks(content)}.") from error
    if not text.strip("\0 \t\r\n"):
        raise EventsError(f"events cannot be read from {path}: it is an empty file.")
    return text


def parse_json(text: str, path: FilePath) -> Any:
    """Return the content of a JSON file, or raise :class:`EventsError`."""
    try:
        content = json.loads(text)
        again = json.dumps(content, ensure_ascii=False) if "\\u" in text else ""
    except (ValueError, RecursionError) as error:
        raise EventsError(f"{path} is not a JSON file: {error}.") from error
    if _LONE_SURROGATE.search(again):
        raise EventsError(f"{path} holds half a Unicode character (a surrogate); it cannot be text.")
    return content


def parsed(rows: pd.DataFrame | Iterable[Mapping[str, Any]], path: FilePath, place: Place) -> Parsed:
    """Return the checked table of a file's rows; what is wrong is told with the file and the place in it."""
    try:
        return Parsed(checked_table(rows, place), place)
    except EventsError as error:
        raise EventsError(f"{path}: {error}") from error


def write_text(path: FilePath, text: str) -> None:
    """Write an event file in UTF-8, whole or not at all."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EventsError(f"{path} cannot be written: a text holds half a Unicode character, {error}.") from error
    write_whole(path, content)


def one_clip(table: pd.DataFrame, kind: str) -> str:
    """Return the name of a table's only clip, for files that describe one."""
    clips = sorted(set(table["clip"]))
    if len(clips) != 1:
        raise EventsError(f"{kind} describes one clip; the table has {len(clips)}: {clips[:5]}.")
    return str(clips[0])


def _looks(content: bytes) -> str:
    kind = next((kind for begin, kind in _BEGINNINGS.items() if content.startswith(begin)), None)
    return "" if kind is None else f"; it looks like {kind}"
