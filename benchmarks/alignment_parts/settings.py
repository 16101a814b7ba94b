"""What is measured, on what, with which seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

WAYS = ("noising", "inversion", "predicted")
GENERATION = "generation"
WEIGHTS = "weights"
LOOKS = (*WAYS, WEIGHTS, GENERATION)
"""Ways to look at known audio; the first of them with randomised weights beside it; generation."""

TRAINING_TIMESTEPS = 1000


@dataclass(frozen=True)
class Settings:
    """Settings of the study; every draw follows from `seed`.

    Steps and guidance are those that the model recommends for generation.

    ``fold`` is what is reported on. Readouts are fitted, and layers chosen, on ``choosing_fold``. ``audio`` says
    where clips and their events come from: the name of a folder of ESC-10, of which scenes are composed, or of an
    event file.
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
        """Return settings that show that everything runs, and measure nothing."""
        return replace(
            self, scenes=6, choosing_scenes=6, prompts=2, seeds=2, steps=2, timesteps=(100, 500), draws=1,
            inversion_steps=10, weight_scenes=2, weight_seeds=6, resamples=50,
        )  # fmt: skip

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Ranges of timesteps that a readout may weigh apart: each holds one of `timesteps`."""
        inner = [(first + second) / 2 for first, second in pairwise(sorted(self.timesteps))]
        return tuple(pairwise([0.0, *inner, float(TRAINING_TIMESTEPS)]))

    def seed_of(self, fold: int, number: int, repeat: int = 0) -> int:
        """Return the seed of the noise of one scene or prompt, derived from all that tells it from others."""
        return int(np.random.SeedSequence((self.seed, fold, number, repeat)).generate_state(1)[0])

    def of_way(self, way: str) -> dict[str, Any]:
        """Return what `attnviz.explain` is called with for one way to look."""
        if way == "inversion":
            return {"method": way, "timesteps": self.timesteps, "inversion_steps": self.inversion_steps}
        return {"method": way, "timesteps": self.timesteps, "draws": self.draws}

    def to_dict(self) -> dict[str, Any]:
        """Return what is written beside the results."""
        return asdict(self)
