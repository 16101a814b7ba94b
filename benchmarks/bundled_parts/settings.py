"""Settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness import seed_of

#: Tables written by each part.
TABLES = {
    "listener": ("listener",),
    "vae": ("vae",),
    "vocoder": ("vocoder",),
    "generation": ("generation", "generated", "generation_choosing", "generated_choosing"),
    "scenes": ("scenes", "scenes_choosing"),
    "levels": ("levels", "scene_levels"),
    "speed": ("speed",),
    "size": ("size",),
}
PARTS = tuple(TABLES)


@dataclass(frozen=True)
class Settings:
    """Settings of the study; all random draws depend on `seed`.

    Steps and guidance are the recommended ones of the model for generation.

    ``fold`` is the reported fold. Choices (of a layer or timestep) are made on ``choosing_fold``. Levels are also
    measured at ``scales``.
    """

    esc10: Path
    model: str
    fold: int = 4
    choosing_fold: int = 3
    scenes: int = 200
    choosing_scenes: int = 60
    prompts: int = 100
    choosing_prompts: int = 30
    seeds: int = 2
    steps: int = 100
    speed_steps: int | None = None
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    level_seeds: int = 10
    scales: tuple[float, ...] = (1.0, 2.0, 4.0, 7.5, 10.0)
    scale_seeds: int = 2
    scene_levels: int = 40
    timesteps: tuple[int, ...] = (50, 100, 200, 300, 400)
    draws: int = 2
    griffin_lim_clips: int = 10
    speed_rounds: int = 3
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(
            self, scenes=4, choosing_scenes=3, prompts=3, choosing_prompts=2, seeds=1, steps=2,
            speed_steps=2, level_seeds=1, scales=(1.0,), scale_seeds=1, scene_levels=1, timesteps=(50, 400),
            draws=1, griffin_lim_clips=1, speed_rounds=1,
        )  # fmt: skip

    def seed_of(self, fold: int, number: int, repeat: int = 0) -> int:
        """Return the noise seed of a scene or prompt, derived from everything that identifies it."""
        return seed_of(self.seed, fold, number, repeat)
