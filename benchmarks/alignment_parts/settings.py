"""Settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from harness import seed_of

WAYS = ("noising", "inversion", "predicted")
GENERATION = "generation"
WEIGHTS = "weights"
LOOKS = (*WAYS, WEIGHTS, GENERATION)
"""Methods for known audio; the first also with randomised weights; generation."""

TRAINING_TIMESTEPS = 1000


@dataclass(frozen=True)
class Settings:
    """Settings of the study; all random draws depend on `seed`.

    Steps and guidance are the recommended ones of the model for generation.

    ``fold`` is the reported fold. Readouts are fitted, and layers chosen, on ``choosing_fold``. ``audio`` is the
    origin of clips and events: the name of a folder of ESC-10, from which scenes are composed, or of an event
    file.
    """

    audio: str
    model: str
    readout: str | None = None
    fold: int = 4
    choosing_fold: int = 3
    scenes: int = 200
    choosing_scenes: int = 48
    prompts: int = 100
    seeds: int = 2
    steps: int = 100
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    timesteps: tuple[int, ...] = (100, 200, 400)
    draws: int = 2
    inversion_steps: int = 10
    weight_scenes: int = 20
    weight_seeds: int = 10
    resamples: int = 1000
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(
            self, scenes=6, choosing_scenes=6, prompts=2, seeds=2, steps=2, timesteps=(100, 500), draws=1,
            inversion_steps=10, weight_scenes=2, weight_seeds=6, resamples=50,
        )  # fmt: skip

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Ranges of timesteps with separate weights; each contains one of `timesteps`."""
        inner = [(first + second) / 2 for first, second in pairwise(sorted(self.timesteps))]
        return tuple(pairwise([0.0, *inner, float(TRAINING_TIMESTEPS)]))

    def seed_of(self, fold: int, number: int, repeat: int = 0) -> int:
        """Return the noise seed of a scene or prompt, derived from everything that identifies it."""
        return seed_of(self.seed, fold, number, repeat)

    def of_way(self, way: str) -> dict[str, Any]:
        """Return the arguments of `attnviz.explain` for one method."""
        if way == "inversion":
            return {"latents": way, "timesteps": self.timesteps, "inversion_steps": self.inversion_steps}
        return {"latents": way, "timesteps": self.timesteps, "draws": self.draws}
