"""Settings of the study, and its cases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from harness import seed_of


class Case(NamedTuple):
    """A generation: guidance scale, number of denoising steps, number of the prompt."""

    scale: float
    steps: int
    prompt: int


@dataclass(frozen=True)
class Settings:
    """Settings of the study; all random draws depend on `seed`.

    ``clips`` is the number of prompts, each generated once at every setting. ``reference`` is the number of real
    scenes, besides those of the prompts, that the generations are compared with. Guidance is applied within
    ``guidance_interval``, which is that of the model.
    """

    esc10: Path
    model: str
    fold: int = 4
    scales: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0)
    steps: tuple[int, ...] = (10, 25, 50, 100, 200)
    clips: int = 40
    reference: int = 200
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    resamples: int = 200
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(self, scales=(1.0, 4.0), steps=(2, 4), clips=3, reference=3, resamples=10)

    def cases(self) -> list[Case]:
        """Return all generations: all settings of a prompt, then the next prompt, so that a cut study has all."""
        settings = list(product(self.scales, self.steps))
        return [Case(scale, steps, prompt) for prompt in range(self.clips) for scale, steps in settings]

    def seed_of(self, prompt: int) -> int:
        """Return the noise seed of a prompt, the same at every setting."""
        return seed_of(self.seed, self.fold, prompt)
