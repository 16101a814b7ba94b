"""The clips of a plan: read from the list, checked, and kept in the corpus by shard."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from attnviz.corpus.plan import Plan
from attnviz.errors import CorpusError
from attnviz.events import event_table, read_events
from attnviz.text.words import split_words
from attnviz.wording import counted

_NAMED = 5
_COLUMNS = ("caption", "clip", "seed")
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
    captions = [text.strip() for text in rows["caption"].tolist()]
    if empty := [number for number, text in enumerate(captions) if not split_words(text)]:
        raise CorpusError(
            f"{path}: {counted(len(empty), 'clip')} without a word in the caption, first in line {empty[0] + 2}."
        )
    names = rows["clip"].tolist() if "clip" in rows else [f"{number:08d}" for number in range(len(rows))]
    if "clip" not in rows and plan.task == "explain":
        raise CorpusError(f"{path} has no column 'clip'; explain needs the audio of every caption.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        what = f"{counted(len(twice), 'name')} more than once" if twice else "an empty name"
        raise CorpusError(
            f"{path}: column 'clip' has {what}: {', '.join(map(repr, twice[:_NAMED]))}. Every clip needs a name "
            "of its own, also if its caption or audio is used twice."
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
    """Read the clips of one shard, or of all."""
    with pq.ParquetFile(path) as file:
        table = file.read() if shard is None else file.read_row_group(shard)
    return [PlannedClip(**row) for row in table.to_pylist()]


def slots(clips: Iterable[PlannedClip]) -> int:
    """Return the largest number of words of a caption, which bounds its phrases."""
    return max(len(split_words(clip.caption)) for clip in clips)


def stat_of(path: Path) -> tuple[int, int]:
    """Return size and time of change of a file, by which its digest is found again."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _read_list(path: Path) -> pd.DataFrame:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        rows = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as missing:
        raise CorpusError(f"the list of clips {path} is missing. Its path is relative to the plan.") from missing
    except (OSError, UnicodeDecodeError, ValueError) as damage:  # errors of the parser are ValueErrors
        raise CorpusError(f"the list of clips {path} cannot be read: {damage}.") from damage
    unknown = sorted(set(rows.columns) - set(_COLUMNS))
    if unknown or "caption" not in rows:
        problem = f"has unknown columns {unknown}" if unknown else "has no column 'caption'"
        raise CorpusError(
            f"{path} {problem}; its columns are {', '.join(_COLUMNS)}, of which only caption must be."
        )
    if rows.empty:
        raise CorpusError(f"{path} lists no clip.")
    return rows


def _seeds(rows: pd.DataFrame, plan: Plan, path: Path) -> list[int]:
    if "seed" not in rows:
        return [plan.seed + number for number in range(len(rows))]
    given = rows["seed"].tolist()
    for number, text in enumerate(given):
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise CorpusError(f"{path}, line {number + 2}: seed is {text!r}; a whole number from 0 is needed.")
    return [int(text) for text in given]


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
        if (size, changed) != stat_of(path):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise CorpusError(f"audio file {path} cannot be read: {error.strerror or error}.") from error
        found.append(digest)
    return found


def _events(plan: Plan, names: Sequence[str]) -> list[str]:
    """Return the events of every clip as JSON records."""
    path = plan.path(str(plan.clips.events))
    table = read_events(path)
    by_clip = {str(clip): rows for clip, rows in table.groupby("clip", sort=False)}
    by_stem = {Path(clip).stem: clip for clip in by_clip}
    found, without = [], []
    for name in names:
        clip = name if name in by_clip else by_stem.get(Path(name).stem)
        if clip is None:
            without.append(name)
            continue
        found.append(json.dumps(_records(by_clip[clip])))
    if without:
        raise CorpusError(
            f"{path} has no events of {counted(len(without), 'clip')} of {len(names)}: "
            f"{', '.join(map(repr, without[:_NAMED]))}. Clips are scored against events; a clip without sounds "
            "needs a row with its name and no times. Or remove these clips from the list."
        )
    return found


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    plain = rows.astype(object)
    return [
        {str(key): value for key, value in row.items()}
        for row in plain.where(plain.notna(), None).to_dict("records")
    ]
