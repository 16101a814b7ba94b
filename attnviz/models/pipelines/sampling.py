"""How a run samples, as the command line asks for it: what is left out is what the checkpoint recommends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from attnviz.models.pipelines import inputs
from attnviz.models.pipelines.recommended import RecommendedSettings, check_interval


@dataclass(frozen=True)
class Sampling:
    """Steps, seed and guidance; None: what the checkpoint recommends."""

    num_inference_steps: int | None = None
    seed: int = 0
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    guidance_interval: tuple[float, float] | None = None

    def check(self) -> None:
        """Check what needs no model; the command line itself limits steps and seed.

        Raises
        ------
        AttnVizError
            Naming what was given and what is allowed.
        """
        if self.guidance_scale is not None:
            inputs.check_guidance(self.guidance_scale)
        if self.guidance_interval is not None:
            check_interval("guidance_interval", self.guidance_interval)

    @property
    def recommendable(self) -> dict[str, Any]:
        """What a checkpoint may recommend."""
        return {
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "guidance_interval": self.guidance_interval,
        }

    def settled(self, recommended: RecommendedSettings, purpose: str = "generation") -> Self:
        """Return the same with what was left out as a checkpoint recommends it."""
        return replace(self, **recommended.settle(self.recommendable, purpose))

    @property
    def call(self) -> dict[str, Any]:
        """What a pipeline is called with."""
        return {
            **self.recommendable,
            "negative_prompt": self.negative_prompt,
            # On the CPU whatever the device, so that a seed means the same noise everywhere.
            "generator": torch.Generator().manual_seed(self.seed),
        }
