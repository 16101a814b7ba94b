"""The sounds a small model was trained on, and prompts that name none of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnviz.errors import CheckpointError, UnknownSoundWarning, warn
from attnviz.io.json_files import as_json, read_json
from attnviz.text.sounds import ENDINGS
from attnviz.text.words import split_words

FILE_NAME = "sounds.json"

_ELSEWHERE = " For other sounds, load a published checkpoint, such as auffusion/auffusion."

KnownSounds = Mapping[str, Sequence[str]]
"""Name of each sound, and words that name it in a prompt, without their endings."""


def read_known_sounds(folder: Path) -> KnownSounds | None:
    """Read ``sounds.json`` of a checkpoint; return None if it is missing, as in the published checkpoints.

    Raises
    ------
    CheckpointError
        The file is not an object of names, each with a list of beginnings of words.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    content: Any = read_json(path, error=CheckpointError)
    if not isinstance(content, dict) or not content or not all(map(_are_words, content.values())):
        raise CheckpointError(
            f'{path} does not say which sounds the model knows; expected is {{"Dog bark": ["dog", "bark"], ...}}.'
        )
    return {name: tuple(stems) for name, stems in content.items()}


def write_known_sounds(sounds: KnownSounds | None, folder: Path) -> None:
    """Write ``sounds.json`` where there are any."""
    if sounds is not None:
        content = {name: list(stems) for name, stems in sounds.items()}
        (folder / FILE_NAME).write_bytes(as_json(content, FILE_NAME))


def warn_of_unknown_sounds(prompts: Sequence[str], sounds: KnownSounds | None) -> None:
    """Warn of prompts that name none of the sounds a model knows.

    Warns
    -----
    UnknownSoundWarning
        With the prompt, and the sounds there are.
    """
    if sounds is None:
        return
    for prompt in dict.fromkeys(prompts):
        if not sounds_named(prompt, sounds):
            warn(
                f"the prompt {prompt!r} names no sound that this model was trained on. "
                f"It knows {len(sounds)}: {', '.join(sounds)}.{_meant(prompt, sounds) or _ELSEWHERE}",
                UnknownSoundWarning,
            )


def sounds_named(text: str, sounds: KnownSounds) -> list[str]:
    """Return the names of the sounds that a text names.

    Examples
    --------
    >>> sounds_named("dogs bark in a crowd", {"Dog bark": ["dog"], "Rooster": ["crow"]})
    ['Dog bark']
    """
    return [
        name
        for name, stems in sounds.items()
        if re.search(rf"\b(?:{'|'.join(map(re.escape, stems))}){ENDINGS}\b", text.lower())
    ]


def _meant(prompt: str, sounds: KnownSounds) -> str:
    """Return a hint at the word that a misspelt one could be."""
    stems = [stem for several in sounds.values() for stem in several]
    for word in split_words(prompt):
        if close := difflib.get_close_matches(word.text.lower(), stems, n=1, cutoff=0.8):
            return f" Did you mean {close[0]!r} by {word.text!r}?"
    return ""


def _are_words(stems: object) -> bool:
    return isinstance(stems, list) and bool(stems) and all(isinstance(stem, str) and stem for stem in stems)
