"""Captions to train text encoders on: of composed scenes, and from files of captions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnviz.errors import AttnVizError, TrainingError
from attnviz.events import read_audiogrounding
from attnviz.io.json_files import parse_json
from attnviz.io.paths import checked_path
from attnviz.scenes.captions import Heard, write_caption
from attnviz.training.scene_store import SceneStore

_HELD_OUT = 10  # one caption in so many is held out


@dataclass(frozen=True)
class CaptionFiles:
    """Captions of files, without duplicates, in the order of the files.

    Attributes
    ----------
    training, held_out : list of str
        A tenth is held out. Which captions are held out depends on their text only, so that it is the same for all
        encoders and all selections of files.
    """

    training: list[str]
    held_out: list[str]

    @classmethod
    def read(cls, paths: Iterable[str]) -> CaptionFiles:
        """Read files of captions.

        Parameters
        ----------
        paths : iterable of str
            ``.jsonl`` (one JSON object with ``text`` per line, as in Auffusion's lists), AudioGrounding's
            ``.json`` or ``.json.gz``, or text files with one caption per line.

        Raises
        ------
        TrainingError
            If a file does not exist, has another format, or contains no caption.
        """
        found: dict[str, None] = {}
        for path in paths:
            place = checked_path(path, "a file of captions", TrainingError)
            try:
                captions = _read(place)
            except (OSError, UnicodeDecodeError, AttnVizError) as error:
                raise TrainingError(f"the captions {path} cannot be read: {error}") from error
            if not captions:
                raise TrainingError(f"{path} contains no captions.")
            found |= dict.fromkeys(captions)
        kept: tuple[list[str], list[str]] = ([], [])
        for caption in found:
            kept[_is_held_out(caption)].append(caption)
        return cls(*kept)


def scene_caption(scenes: SceneStore, i: int, rng: np.random.Generator) -> str:
    """Return a new caption of a stored scene: other phrases and connectives with the same meaning."""
    heard = [Heard(sound["class"], sound["onset"], sound["offset"]) for sound in scenes.sounds[i]]
    return write_caption(heard, rng)[0]


def _read(path: Path) -> list[str]:
    if path.name.endswith((".json", ".json.gz")):
        return [str(caption) for caption in dict.fromkeys(read_audiogrounding(path)["caption"])]
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    if path.suffix == ".jsonl":
        return [_text(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line]
    return [line for line in lines if line]


def _text(line: str, where: str) -> str:
    content = parse_json(line.encode(), where, error=TrainingError)
    text = content.get("text") if isinstance(content, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise TrainingError(f"{where}: expected an object with the caption in 'text'; got {line[:60]!r}.")
    return text.strip()


def _is_held_out(caption: str) -> bool:
    folded = " ".join(caption.lower().split()).rstrip(".")
    return int.from_bytes(hashlib.sha256(folded.encode()).digest()[:4]) % _HELD_OUT == 0
