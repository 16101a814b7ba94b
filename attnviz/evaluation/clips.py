"""Clips to evaluate: folders of audio, folders of runs, and their captions."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnviz.arguments import public
from attnviz.errors import EvaluationError
from attnviz.events.clips import AUDIO_SUFFIXES
from attnviz.io.json_files import parse_json, read_json
from attnviz.io.paths import FilePath, checked_path
from attnviz.wording import counted

METADATA = ("metadata.csv", "metadata.jsonl")
"""Files with the captions of a folder of audio: those of the AudioFolder layout of Hugging Face datasets."""
_FILE_COLUMN = "file_name"
_CAPTION_COLUMNS = ("caption", "text", "prompt")
_MOST_NAMED = 5


@dataclass(frozen=True)
class Clip:
    """An audio file with its caption.

    Attributes
    ----------
    path : pathlib.Path
    name : str
        Path within its folder without suffix; of a run, the name of its folder.
    caption : str or None
        Prompt of the run, or caption of the clip, without spaces at its ends.
    """

    path: Path
    name: str
    caption: str | None = None


@public
def read_clips(folders: FilePath | Iterable[FilePath]) -> list[Clip]:
    """List the clips of folders, with their captions.

    Parameters
    ----------
    folders : path-like or iterable of path-like
        Each is a run folder, or a folder that is searched recursively for run folders and audio files. A run
        folder is one clip: its ``audio.wav`` with the prompt of its ``run.json``. Captions of other audio files
        are in ``metadata.csv`` or ``metadata.jsonl`` of the given folder: ``file_name`` is the path in the folder,
        and ``caption``, ``text`` or ``prompt`` the caption. Names that begin with a dot are left out.

    Returns
    -------
    list of Clip
        Sorted by path within each folder.

    Raises
    ------
    EvaluationError
        If a folder is missing or has no audio, a run has no audio, a metadata file is damaged or names a file that
        is not there, or a clip is listed twice.
    """
    given = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
    clips = [clip for folder in given for clip in _clips_of(checked_path(folder, "the folder", EvaluationError))]
    if not clips:
        raise EvaluationError("no folder was given; at least one is needed.")
    twice = _repeated(clip.path.resolve() for clip in clips)
    if twice:
        raise EvaluationError(f"{twice[0]} is listed more than once. Does one of the folders contain another?")
    return clips


@public
def pair_clips(evaluated: Sequence[Clip], reference: Sequence[Clip]) -> tuple[list[tuple[int, int]], str]:
    """Pair evaluated clips with reference clips, by caption or by name.

    Parameters
    ----------
    evaluated, reference : sequence of Clip
        If all clips have captions, clips with the same caption are pairs; there may be several of either side.
        Otherwise clips with the same name are.

    Returns
    -------
    pairs : list of (int, int)
        Positions in `evaluated` and `reference`, sorted. Clips without a partner are in none.
    by : {"caption", "name"}

    Raises
    ------
    EvaluationError
        If two clips of one side have the same name, and names are compared.
    """
    by = "caption" if all(clip.caption for clip in [*evaluated, *reference]) else "name"
    if by == "name":
        for clips in (evaluated, reference):
            twice = _repeated(clip.name for clip in clips)
            if twice:
                raise EvaluationError(f"several clips have the name {twice[0]!r}, so that pairs are not clear.")
    partners = defaultdict(list)
    for j, clip in enumerate(reference):
        partners[getattr(clip, by)].append(j)
    return [(i, j) for i, clip in enumerate(evaluated) for j in partners[getattr(clip, by)]], by


def _clips_of(folder: Path) -> list[Clip]:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise EvaluationError(f"{folder} {what}; a folder of audio files or runs is needed.")
    if (folder / "corpus.json").exists():
        raise EvaluationError(
            f"{folder} is a corpus, whose clips are not kept. Audio of its sample (keep.sample_every) is in "
            f"{folder / 'samples'}."
        )
    if (folder / "run.json").exists():
        return [_run(folder, folder.resolve().name)]
    captions = _captions(folder)
    clips = []
    for path in _found(folder):
        within = path.relative_to(folder).as_posix()
        if path.is_dir():
            clips.append(_run(path, within))
        else:
            clips.append(Clip(path, Path(within).with_suffix("").as_posix(), captions.pop(within, None)))
    if captions:
        named = ", ".join(sorted(captions)[:_MOST_NAMED])
        raise EvaluationError(f"the metadata of {folder} names {counted(len(captions), 'missing file')}: {named}.")
    if not clips:
        raise EvaluationError(f"{folder} has no run and no audio file ({', '.join(AUDIO_SUFFIXES)}).")
    return clips


def _found(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield run folders and audio files outside of runs, sorted; links to a folder `above` are not followed."""
    above |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path.is_dir() and path.resolve() in above):
            continue
        if path.is_dir():
            yield from [path] if (path / "run.json").exists() else _found(path, above)
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            yield path


def _run(folder: Path, name: str) -> Clip:
    record = read_json(folder / "run.json", error=EvaluationError)
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not (folder / "audio.wav").is_file():
        raise EvaluationError(f"the run {folder} has no audio.wav. Was it copied only in part?")
    return Clip(folder / "audio.wav", name, _caption(prompt))


def _captions(folder: Path) -> dict[str, str | None]:
    """Return the captions of a folder's metadata file by path within the folder."""
    there = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(there) > 1:
        raise EvaluationError(f"{folder} has {' and '.join(METADATA)}; only one of them can have the captions.")
    if not there:
        return {}
    path = there[0]
    try:
        text = path.read_text("utf-8-sig")
        rows: list[Any] = (
            _csv_rows(text, path)
            if path.suffix == ".csv"
            else [
                parse_json(line, f"{path}, line {number}", error=EvaluationError)
                for number, line in enumerate(text.splitlines(), 1)
                if line.strip()
            ]
        )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    captions: dict[str, str | None] = {}
    for number, row in enumerate(rows, 1):
        file = row.get(_FILE_COLUMN) if isinstance(row, Mapping) else None
        columns = [name for name in _CAPTION_COLUMNS if isinstance(row, Mapping) and name in row]
        if not isinstance(file, str) or not file or len(columns) != 1:
            raise EvaluationError(
                f"{path}: entry {number} needs {_FILE_COLUMN} and one of {', '.join(_CAPTION_COLUMNS)}."
            )
        if file in captions:
            raise EvaluationError(f"{path}: entry {number} names {file!r} a second time.")
        captions[file] = _caption(row[columns[0]])
    return captions


def _csv_rows(text: str, path: Path) -> list[Any]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if twice := _repeated(reader.fieldnames or ()):
        raise EvaluationError(f"{path} has the column {twice[0]!r} more than once.")
    rows = list(reader)
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise EvaluationError(
                f"{path}: entry {number} has another number of fields than the header. A caption with commas must "
                "be in quotes."
            )
    return rows


def _caption(text: Any) -> str | None:
    return text.strip() or None if isinstance(text, str) else None


def _repeated(values: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
