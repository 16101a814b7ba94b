"""Scenes and prompts of a fold, reproducible by seed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnviz.audio import log_mel, mel_to_image
from attnviz.sounds import CLASSES, ComposerConfig, Recording, Scene, read_esc10, scenes

ORDER = re.compile(r"\b(then|followed by|before)\b")


@dataclass(frozen=True)
class Clip:
    """A scene and its mel image ``(256, 1024)`` in [0, 1]."""

    scene: Scene
    image: np.ndarray

    @property
    def classes(self) -> list[str]:
        """Classes of its sounds, by first onset."""
        return [sound.sound for sound in self.scene.sounds]

    def activity(self, columns: int) -> np.ndarray:
        """Return the audible classes of each column, ``(10, columns)`` bool."""
        active = np.zeros((len(CLASSES), columns), dtype=bool)
        for sound, row in zip(self.scene.sounds, self.scene.activity(columns).values, strict=True):
            active[CLASSES.index(sound.sound)] = row >= 0.5
        return active


@dataclass(frozen=True)
class Prompt:
    """A caption with the classes and characters of its phrases, in order of onset."""

    text: str
    classes: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    ordered: bool


def recordings(esc10: str | Path, fold: int) -> list[Recording]:
    """Read the recordings of one fold."""
    return read_esc10(esc10, folds=[fold])


def clips(esc10: str | Path, fold: int, count: int, seed: int) -> list[Clip]:
    """Compose scenes of one to four sounds."""
    composed = scenes(recordings(esc10, fold), count, (seed, fold))
    return [Clip(scene, mel_to_image(log_mel(scene.mixture))) for scene in composed]


def prompts(esc10: str | Path, fold: int, count: int, seed: int) -> list[Prompt]:
    """Compose prompts: two of five name one sound (each class in turn), the others two.

    They are captions of scenes, so words of order are only used if they are correct for the scene. The class that
    comes first is random.
    """
    found = recordings(esc10, fold)
    one = ComposerConfig(events=(1, 1))
    two = ComposerConfig(events=(2, 2), sequences=0.6)
    singles = count * 2 // 5
    texts: list[Prompt] = []
    for i in range(singles):
        only = [recording for recording in found if recording.sound == CLASSES[i % len(CLASSES)]]
        texts.append(_prompt(next(scenes(only, 1, (seed, fold, 1), one, start=i))))
    texts += [_prompt(scene) for scene in scenes(found, count - singles, (seed, fold, 2), two)]
    return texts


def _prompt(scene: Scene) -> Prompt:
    return Prompt(
        text=scene.caption,
        classes=tuple(sound.sound for sound in scene.sounds),
        spans=tuple(sound.span for sound in scene.sounds),
        ordered=bool(ORDER.search(scene.caption)),
    )
