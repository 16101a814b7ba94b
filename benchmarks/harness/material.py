"""Scenes and prompts of a fold, reproducible by seed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import attnviz
from attnviz.audio import log_mel, mel_to_image
from attnviz.events import event_table
from attnviz.scenes import CLASSES, ComposerConfig, Recording, Scene, read_esc10, scenes

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
    """Return the captions of `prompted_scenes`."""
    return [prompt_of(scene) for scene in prompted_scenes(esc10, fold, count, seed)]


def prompted_scenes(esc10: str | Path, fold: int, count: int, seed: int) -> list[Scene]:
    """Compose scenes whose captions are prompts: two of five have one sound (each class in turn), the others two.

    Words of order are only used if they are correct for the scene. The class that comes first is random.
    """
    found = recordings(esc10, fold)
    one = ComposerConfig(events=(1, 1))
    two = ComposerConfig(events=(2, 2), sequences=0.6)
    singles = count * 2 // 5
    composed: list[Scene] = []
    for i in range(singles):
        only = [recording for recording in found if recording.sound == CLASSES[i % len(CLASSES)]]
        composed.append(next(scenes(only, 1, (seed, fold, 1), one, start=i)))
    return [*composed, *scenes(found, count - singles, (seed, fold, 2), two)]


def prompt_of(scene: Scene) -> Prompt:
    """Return the caption of a scene with its classes and phrases."""
    return Prompt(
        text=scene.caption,
        classes=tuple(sound.sound for sound in scene.sounds),
        spans=tuple(sound.span for sound in scene.sounds),
        ordered=bool(ORDER.search(scene.caption)),
    )


def heard_events(hearing: attnviz.Hearing, prompt: Prompt, clip: str) -> pd.DataFrame:
    """Return the events of a prompt in generated audio: the detected events of the class of each phrase.

    A phrase whose class was not detected is a row without times, which means silent.
    """
    rows = []
    for sound, span in zip(prompt.classes, prompt.spans, strict=True):
        heard = hearing.events.loc[hearing.events["label"] == sound, ["onset", "offset"]].to_numpy()
        label = prompt.text[slice(*span)]
        rows += [
            {"clip": clip, "label": label, "onset": onset, "offset": offset, "span": span}
            for onset, offset in (heard if len(heard) else [(np.nan, np.nan)])
        ]
    return event_table(rows)
