"""Settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness import seed_of

from encoders_parts.captions import STYLES


@dataclass(frozen=True)
class Settings:
    """Settings of the study of one model; all random draws depend on `seed`.

    ``prompts`` are generated in the first style, and the first ``restyled`` of them in the others; ``scenes``
    are explained. ``reference`` is the number of real scenes, besides those of the prompts, that generations are
    compared with. ``steps``, ``guidance`` and ``guidance_interval`` apply to denoisers; a language model of codes
    is sampled as its checkpoint says.
    """

    esc10: Path
    model: str
    fold: int = 4
    prompts: int = 100
    restyled: int = 40
    scenes: int = 100
    reference: int = 200
    steps: int = 25
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 0.8)
    timesteps: tuple[int, ...] = (100, 200, 400)
    draws: int = 1
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(self, prompts=3, restyled=1, scenes=2, reference=2, steps=2, timesteps=(200,))

    def cases(self) -> list[tuple[str, int]]:
        """Return style and number of every generation."""
        first, *others = STYLES
        return [
            *((first, number) for number in range(self.prompts)),
            *((style, number) for style in others for number in range(self.restyled)),
        ]

    def seed_of(self, number: int) -> int:
        """Return the noise seed of a prompt or scene, the same for every model and style."""
        return seed_of(self.seed, self.fold, number)
