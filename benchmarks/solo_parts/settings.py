"""Settings of the study."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

PARTS = ("choose", "scenes", "sharp", "generation")
KINDS = {"one after another": 1.0, "anywhere": 0.0}
"""Share of scenes in which sounds follow one another."""


@dataclass(frozen=True)
class Settings:
    """Settings of the study; all random draws depend on `seed`. Scenes are explained by noising."""

    model: str
    esc10: str
    fold: int = 4
    choosing_folds: tuple[int, ...] = (1, 2, 3)
    scenes: int = 40
    choosing_scenes: int = 8
    sharp_scenes: int = 120
    prompts: int = 50
    steps: int = 100
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    timesteps: tuple[int, ...] = (100, 200, 400)
    draws: int = 2
    resamples: int = 1000
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(
            self, scenes=1, choosing_scenes=1, choosing_folds=self.choosing_folds[:1], sharp_scenes=2, prompts=2,
            steps=2, timesteps=(100,), draws=1, resamples=20,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that are saved with the results, without the path of the data."""
        return {name: value for name, value in asdict(self).items() if name != "esc10"}
