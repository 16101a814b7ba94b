"""Scenes with known stems, explained by noising."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from harness import Model, seed_of
from harness.material import recordings

import attnviz
from attnviz.maps import AttentionMaps
from attnviz.scenes import ComposerConfig, Recording, Scene, scenes

KINDS = {"one after another": 1.0, "anywhere": 0.0}
"""Share of scenes in which sounds follow one another."""


class Explained:
    """Scenes of a study and their maps."""

    def __init__(self, model: Model, settings: Any) -> None:
        self.model, self.settings = model, settings

    def two_sounds(self, fold: int, kind: str, number: int) -> tuple[Scene, AttentionMaps]:
        """Return a scene of two sounds, and its maps."""
        sequences = KINDS[kind]
        return self._made(fold, number, ComposerConfig(events=(2, 2), sequences=sequences), int(sequences))

    def of_alignment(self, number: int) -> tuple[Scene, AttentionMaps]:
        """Return a scene of the alignment study, with one to four sounds, and its maps."""
        return self._made(self.settings.fold, number, None)

    def _made(
        self, fold: int, number: int, config: ComposerConfig | None, *more: int
    ) -> tuple[Scene, AttentionMaps]:
        settings = self.settings
        found = _recordings(settings.esc10, fold)
        scene = next(scenes(found, 1, (settings.seed, fold, *more), config, start=number))
        maps = attnviz.explain(
            self.model.pipe, scene.mixture, scene.caption, timesteps=settings.timesteps, draws=settings.draws,
            seed=seed_of(settings.seed, fold, number), normalize=False,
        )  # fmt: skip
        return scene, maps


@cache
def _recordings(esc10: Path, fold: int) -> list[Recording]:
    return recordings(esc10, fold)
