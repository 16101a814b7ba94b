"""Settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness import seed_of

PARTS = ("swap", "refine", "reweight", "inpaint", "style", "command")


@dataclass(frozen=True)
class Settings:
    """Settings of the study; all random draws depend on `seed`.

    Steps, guidance, replace steps and blend are the defaults of a user: those of the model's
    ``recommended_settings.json``. Only `steps` can be changed, for a faster run.
    """

    esc10: Path
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
        """Return settings for a smoke test."""
        return replace(self, prompts=2, steps=2, weights=(-1.0, 1.0, 2.0), strengths=(0.5, 1.0), resamples=100)

    def seed_of(self, part: str, number: int) -> int:
        """Return the seed of a case, derived from everything that identifies it."""
        return seed_of(self.seed, PARTS.index(part), number)
