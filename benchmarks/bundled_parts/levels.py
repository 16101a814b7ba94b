"""Levels of one-sound generations by guidance scale, and of scenes of the same class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from attnviz.models.pipelines import AuffusionPipeline
from attnviz.scenes import CLASSES, PHRASES, ComposerConfig, Recording, scenes
from bundled_parts.settings import Settings

OWN = "own"
"""Name of the checkpoint's own guidance scale."""
FLOOR_DB = -120.0


def level_rows(pipe: AuffusionPipeline, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the level of the simplest prompt of each class: at the checkpoint's settings, then at every scale."""
    cases: list[tuple[float | None, int]] = [(None, seed) for seed in range(settings.level_seeds)]
    cases += [(scale, seed) for scale in settings.scales for seed in range(settings.scale_seeds)]
    for scale, seed in cases:
        for number, sound in enumerate(CLASSES):
            generator = torch.Generator().manual_seed(settings.seed_of(0, number, seed))
            prompt = PHRASES[sound].clauses[0]
            out = pipe(
                prompt,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance if scale is None else scale,
                guidance_interval=settings.guidance_interval,
                generator=generator,
                duration=10.24,
            )
            named = {"class": sound, "scale": OWN if scale is None else f"{scale:g}", "seed": seed}
            yield {**named, "level": level(out.audios[0])}


def scene_level_rows(recordings: list[Recording], count: int, seed: int) -> list[dict[str, Any]]:
    """Return the levels of scenes of one sound, `count` of each class."""
    rows = []
    for number, sound in enumerate(CLASSES):
        only = [recording for recording in recordings if recording.sound == sound]
        for scene in scenes(only, count, (seed, 3, number), ComposerConfig(events=(1, 1))):
            rows.append({"class": sound, "level": level(scene.mixture)})
    return rows


def level(audio: np.ndarray) -> float:
    """Return the root mean square in dB relative to full scale, at least `FLOOR_DB`."""
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    return max(10 * float(np.log10(max(power, 1e-30))), FLOOR_DB)
