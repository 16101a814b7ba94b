"""Two-sound scenes with known stems, explained by noising."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bundled_parts.material import recordings

import attnviz
from attnviz.maps import AttentionMaps
from attnviz.sounds import ComposerConfig, Scene, scenes
from solo_parts.settings import KINDS, Settings


def two_sounds(settings: Settings, fold: int, kind: str, count: int) -> Iterator[tuple[int, Scene]]:
    """Compose scenes of two sounds of a fold."""
    config = ComposerConfig(events=(2, 2), sequences=KINDS[kind])
    seed = (settings.seed, fold, int(KINDS[kind]))
    yield from enumerate(scenes(recordings(settings.esc10, fold), count, seed, config))


def explained(pipe: Any, scene: Scene, number: int, settings: Settings) -> AttentionMaps:
    """Return the maps of a scene."""
    seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
    return attnviz.explain(
        pipe, scene.mixture, scene.caption, timesteps=settings.timesteps, draws=settings.draws, seed=seed,
        normalize=False,
    )  # fmt: skip
