"""The clips of a plan: read from the list, checked, and kept in the corpus by shard."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from attnviz.corpus.plan import Plan
from attnviz.errors import CorpusError
from attnviz.events import event_table, read_events
from attnviz.events.clips import AUDIO_SUFFIXES
from attnviz.text.words import split_words
from attnviz.wording import counted

_NAMED = 5
_COLUMNS = ("caption", "clip", "seed")
_LINE = "line"  # of the list, beside the columns of a row
SCHEMA = pa.schema(
    [
        ("index", pa.int64()), ("clip", pa.string()), ("caption", pa.string()), ("seed", pa.int64()),
        ("sha256", pa.string()), ("events", pa.string()),
    ]
)  # fmt: skip
"""Columns of ``clips.parquet``. ``sha256`` is that of the audio file; ``events`` are JSON records, or empty."""


@dataclass(frozen=True)
class PlannedClip:
    """A clip of a plan.

    Attributes
    ----------
    index : int
        Its place in the list, from 0.
    clip, caption : str
    seed : int
    sha256 : str
        Digest of its audio file; empty without one.
    events : str
        Its events as JSON records; empty if there is no file of events.
    """

    index: int
    clip: str
    caption: str
    seed: int
    sha256: str = ""
    events: str = ""

    @property
    def event_table(self) -> pd.DataFrame:
        """Event table of the clip."""
        records = json.loads(self.events)
        for record in records:
            if record.get("span") is not None:
                record["span"] = tuple(record["span"])
        return event_table(records)


def planned_clips(plan: Plan, known: Mapping[str, tuple[int, int, str]]) -> list[PlannedClip]:
    """Read the clips of a plan.

    Parameters
    ----------
    plan : Plan
    known : mapping of str to (int, int, str)
        Size, time of change and digest of audio files that were read before.

    Raises
    ------
    CorpusError
        If the list is missing, has no clip, no caption, unknown columns, or a name twice; if audio files are
        missing; or if clips have no events but are to be scored.
    """
    path = plan.path(plan.clips.list)
    rows = _read_list(path)
    captions = [row["caption"].strip() for row in rows]
    if empty := [row for row, text in zip(rows, captions, strict=True) if not split_words(text)]:
        raise CorpusError(
            f"{path}: {counted(len(empty), 'clip')} without a word in the caption, first in line "
            f"{empty[0][_LINE]}."
        )
    if "clip" in rows[0]:
        names = [row["clip"] for row in rows]
    elif plan.task == "explain":
        raise CorpusError(f"{path} has no column 'clip'; explain needs the audio of every caption.")
    else:
        names = [f"{number:08d}" for number in range(len(rows))]
    if "" in names:
        raise CorpusError(f"{path}, line {rows[names.index('')][_LINE]}: the name of the clip is empty.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise CorpusError(
            f"{path}: column 'clip' has {counted(len(twice), 'name')} more than once: "
            f"{', '.join(map(repr, twice[:_NAMED]))}. Every clip needs a name of its own, also if its caption or "
            "audio is used twice."
        )
    seeds = _seeds(rows, plan, path)
    digests = _audio_digests(plan, names, known)
    events = _events(plan, names) if plan.score.events == "file" else [""] * len(names)
    return [
        PlannedClip(number, *one)
        for number, one in enumerate(zip(names, captions, seeds, digests, events, strict=True))
    ]


def write_clips(clips: Sequence[PlannedClip], path: Path, clips_per_shard: int) -> None:
    """Write ``clips.parquet``, a row group per shard."""
    columns = {name: [getattr(clip, name) for clip in clips] for name in SCHEMA.names}
    pq.write_table(pa.table(columns, SCHEMA), path, row_group_size=clips_per_shard)


def read_clips(path: Path, shard: int | None = None) -> list[PlannedClip]:
    """Read the clips of one shard, or of all.

    Raises
    ------
    CorpusError
        If the table is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read() if shard is None else file.read_row_group(shard)
        return [PlannedClip(**row) for row in table.to_pylist()]
    except (OSError, pa.ArrowException, IndexError, TypeError) as damage:
        raise CorpusError(
            f"{path} is missing or damaged ({str(damage).splitlines()[0]}). It has the clips of the corpus: "
            "restore it, or run the plan in a new folder."
        ) from damage


def slots(clips: Iterable[PlannedClip]) -> int:
    """Return the largest number of words of a caption, which bounds its phrases."""
    return max(len(split_words(clip.caption)) for clip in clips)


def stat_of(path: Path) -> tuple[int, int]:
    """Return size and time of change of a file, by which its digest is found again."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def audio_digest(path: Path) -> str:
    """Return the SHA-256 of an audio file.

    Raises
    ------
    CorpusError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(f"audio file {path} cannot be read: {error.strerror or error}.") from error


def _read_list(path: Path) -> list[dict[str, str]]:
    """Return the rows of the list by column, each with its line."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        text = path.read_text("utf-8-sig")
        reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
        # A field may have line breaks: a row ends in this line.
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except FileNotFoundError as missing:
        raise CorpusError(f"the list of clips {path} is missing. Its path is relative to the plan.") from missing
    except (OSError, UnicodeDecodeError, csv.Error) as damage:
        raise CorpusError(f"the list of clips {path} cannot be read: {damage}.") from damage
    header = [name.strip() for name in lines[0][1]] if lines else []
    unknown = sorted(set(header) - set(_COLUMNS))
    if unknown or "caption" not in header or len(set(header)) < len(header):
        problem = f"has unknown columns {unknown}" if unknown else "has no column 'caption'"
        problem = "names a column twice" if len(set(header)) < len(header) else problem
        raise CorpusError(
            f"{path} {problem}; its columns are {', '.join(_COLUMNS)}, of which only caption must be, separated "
            f"by {'tabs' if separator != ',' else 'commas'}."
        )
    for line, fields in lines[1:]:
        if len(fields) != len(header):
            raise CorpusError(
                f"{path}, line {line} has {counted(len(fields), 'field')}, and the header {len(header)}: "
                f"{fields!r:.200}. A caption with {'a tab' if separator != ',' else 'commas'} must be in quotes."
            )
    if len(lines) < 2:
        raise CorpusError(f"{path} lists no clip.")
    return [{**dict(zip(header, fields, strict=True)), _LINE: str(line)} for line, fields in lines[1:]]


def _seeds(rows: Sequence[Mapping[str, str]], plan: Plan, path: Path) -> list[int]:
    if "seed" not in rows[0]:
        return [plan.seed + number for number in range(len(rows))]
    for row in rows:
        text = row["seed"]
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise CorpusError(f"{path}, line {row[_LINE]}: seed is {text!r}; a whole number from 0 is needed.")
    return [int(row["seed"]) for row in rows]


def _audio_digests(plan: Plan, names: Sequence[str], known: Mapping[str, tuple[int, int, str]]) -> list[str]:
    if plan.clips.audio is None:
        return [""] * len(names)
    folder = plan.path(plan.clips.audio)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CorpusError(
            f"{counted(len(missing), 'audio file')} of {len(names)} missing below {folder}: "
            f"{', '.join(map(repr, missing[:_NAMED]))}. Names are paths in this folder, with their suffix."
        )
    found = []
    for name in names:
        path = folder / name
        size, changed, digest = known.get(name, (-1, -1, ""))
        found.append(digest if (size, changed) == stat_of(path) else audio_digest(path))
    return found


def _events(plan: Plan, names: Sequence[str]) -> list[str]:
    """Return the events of every clip as JSON records."""
    path = plan.path(str(plan.clips.events))
    table = read_events(path)
    by_clip = {str(clip): rows for clip, rows in table.groupby("clip", sort=False)}
    of_name = _same_clips(names, list(by_clip))
    if without := [name for name in names if name not in of_name]:
        raise CorpusError(
            f"{path} has no events of {counted(len(without), 'clip')} of {len(names)}: "
            f"{', '.join(map(repr, without[:_NAMED]))}. Names are equal, or differ in suffix or folder only. "
            "Clips are scored against events; a clip without sounds needs a row with its name and no times. Or "
            "remove these clips from the list."
        )
    return [json.dumps(_records(by_clip[of_name[name]])) for name in names]


def _same_clips(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Return the clip of the events that each name denotes: the same name, with another suffix, or without folder.

    A name that several clips could denote, and a clip that several names could, is left out.
    """
    found: dict[str, str] = {}
    for key in (str, _without_suffix, _file):
        left = [name for name in names if name not in found]
        taken = set(found.values())
        free = [clip for clip in known if clip not in taken]
        theirs, ours = Counter(map(key, free)), Counter(map(key, left))
        by_key = {key(clip): clip for clip in free}
        for name in left:
            if ours[key(name)] == theirs[key(name)] == 1:
                clip = by_key[key(name)]
                if key is not _file or "/" not in name or "/" not in clip:  # two folders: two recordings
                    found[name] = clip
    return found


def _without_suffix(name: str) -> str:
    path = PurePath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in AUDIO_SUFFIXES else path.as_posix()


def _file(name: str) -> str:
    return PurePath(_without_suffix(name)).name


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    plain = rows.astype(object)
    return [
        {str(key): value for key, value in row.items()}
        for row in plain.where(plain.notna(), None).to_dict("records")
    ]
