"""What is measured, on what, with which seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("swap", "refine", "reweight", "inpaint", "style", "command")


@dataclass(frozen=True)
class Settings:
    """Settings of the study; every draw follows from `seed`.

    Steps, guidance, replace steps and blend are those a reader gets who gives none: the model's own, of its
    ``recommended_settings.json``. Only `steps` can be set, for a faster look.
    """

    esc10: str
    model: str
    fold: int = 4
    prompts: int = 50
    steps: int | None = None
    sdedit_strength: float = 0.6
    weights: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
    strengths: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    span_seconds: float = 3.2
    resamples: int = 10_000
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings that show that everything runs, and measure nothing."""
        return replace(self, prompts=2, steps=2, weights=(-1.0, 1.0, 2.0), strengths=(0.5, 1.0), resamples=100)

    def seed_of(self, part: str, number: int) -> int:
        """Return the seed of one case, derived from all that tells it from others."""
        return int(np.random.SeedSequence((self.seed, PARTS.index(part), number)).generate_state(1)[0])

    def to_dict(self) -> dict[str, Any]:
        """Return what is written beside the results: no path of the machine."""
        return {**asdict(self), "esc10": Path(self.esc10).name}
