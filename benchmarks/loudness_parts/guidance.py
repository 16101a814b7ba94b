"""Guidance methods, which combine the conditional and the unconditional prediction of the clean latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.guiders.adaptive_projected_guidance import normalized_guidance

Guide = Callable[[torch.Tensor, torch.Tensor, float, int], torch.Tensor]
"""Function of (conditional, unconditional, scale, timestep); at scale 1, the conditional prediction."""


def plain(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float, timestep: int) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598)."""
    return conditional + (scale - 1) * (conditional - unconditional)


def within(first: int) -> Guide:
    """Return guidance that begins below a timestep (guidance interval: Kynkaanniemi et al. 2024, 2404.07724)."""

    def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float, timestep: int) -> torch.Tensor:
        return plain(conditional, unconditional, scale if timestep < first else 1.0, timestep)

    return guide


def projected(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float, timestep: int) -> torch.Tensor:
    """Adaptive projected guidance (Sadat et al. 2024, arXiv 2410.02416): no component along the prediction."""
    return normalized_guidance(conditional, unconditional, scale - 1, eta=0.0, use_original_formulation=True)


def mean_free(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float, timestep: int) -> torch.Tensor:
    """Classifier-free guidance whose update has zero mean over rows and columns in each channel."""
    push = conditional - unconditional
    return conditional + (scale - 1) * (push - push.mean((2, 3), keepdim=True))


GUIDES: dict[str, Guide] = {
    "plain": plain,
    "interval t < 880": within(880),
    "mean free": mean_free,
    "projected": projected,
    "interval t < 800": within(800),
}
