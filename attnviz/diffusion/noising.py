"""Compute denoiser inputs from real audio: noising, DDIM inversion, and predicted clean latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnviz.diffusion.continuous import Schedule

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""Denoiser with fixed text embeddings: maps latents (rows, ...) and a timestep to a float32 prediction."""

View = tuple[torch.Tensor, int]
"""Input of the denoiser: latents (rows, ...) and a timestep."""


@dataclass(frozen=True)
class Noising:
    """Add independent noise to the clip at each timestep.

    Parameters
    ----------
    timesteps : tuple of int
        Timesteps of the training schedule, in the order of evaluation.
    draws : int
        Number of noise draws per timestep, which are the rows of a view.
    seed : int
        Seed of the noise.
    """

    timesteps: tuple[int, ...]
    draws: int
    seed: int

    @property
    def rows(self) -> int:
        """Number of rows of each view. Attention is averaged over rows."""
        return self.draws

    def predictions(self, schedule: Schedule) -> int:
        """Return the number of denoiser calls that are not recorded."""
        return 0

    def needed(self, schedule: Schedule) -> list[int]:
        """Return the timesteps of all denoiser calls, each once."""
        return list(self.timesteps)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for the provenance of the maps."""
        return {"latents": "noising", "timesteps": self.timesteps, "draws": self.draws, "seed": self.seed}

    def views(self, latents: torch.Tensor, schedule: Schedule, predict: Predict) -> list[View]:
        """Return one view per timestep: the latents (1, ...) of the clip with noise."""
        return [
            (schedule.noised(latents, draw_noise(latents, timestep, self.draws, self.seed), timestep), timestep)
            for timestep in self.timesteps
        ]


@dataclass(frozen=True)
class Predicted:
    """Compute the clean latents that the denoiser predicts from the noisy clip.

    Parameters
    ----------
    timesteps, draws, seed
        Settings of the noise; see `Noising`.
    look_timestep : int
        Timestep given to the denoiser together with the predicted latents.

    Notes
    -----
    No noise is added to the predicted latents.
    """

    timesteps: tuple[int, ...]
    draws: int
    seed: int
    look_timestep: int

    @property
    def rows(self) -> int:
        """Number of rows of each view. Attention is averaged over rows."""
        return self.draws

    def predictions(self, schedule: Schedule) -> int:
        """Return the number of denoiser calls that are not recorded."""
        return len(self.timesteps)

    def needed(self, schedule: Schedule) -> list[int]:
        """Return the timesteps of all denoiser calls, each once."""
        return list(dict.fromkeys([*self.timesteps, self.look_timestep]))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for the provenance of the maps."""
        noised = Noising(self.timesteps, self.draws, self.seed).settings
        return {**noised, "latents": "predicted", "look_timestep": self.look_timestep}

    def views(self, latents: torch.Tensor, schedule: Schedule, predict: Predict) -> list[View]:
        """Return one view per timestep: the clean latents predicted from the noisy clip."""
        noised = Noising(self.timesteps, self.draws, self.seed).views(latents, schedule, predict)
        return [
            (
                schedule.presented(
                    schedule.clean(predict(samples, timestep), samples, timestep), self.look_timestep
                ),
                self.look_timestep,
            )
            for samples, timestep in noised
        ]


@dataclass(frozen=True)
class Inversion:
    """Compute the latents of the DDIM trajectory that leads to the clip.

    Parameters
    ----------
    timesteps : tuple of int
        Timesteps in the order of evaluation. The inversion passes through all of them.
    steps : int
        Number of steps for the whole schedule. The inversion stops at the highest of `timesteps`.

    Notes
    -----
    Like every DDIM inversion, an inversion step evaluates the denoiser with the current latents and the next
    timestep, because the next latents are unknown. The views pair latents with their own timestep, as in sampling.
    """

    timesteps: tuple[int, ...]
    steps: int

    @property
    def rows(self) -> int:
        """Number of rows of each view: 1, because inversion is deterministic."""
        return 1

    def predictions(self, schedule: Schedule) -> int:
        """Return the number of denoiser calls that are not recorded."""
        return max(self.timesteps) // (len(schedule) // self.steps) + 1

    def needed(self, schedule: Schedule) -> list[int]:
        """Return the timesteps of all denoiser calls, each once."""
        return [int(each) for each in schedule.inverse(self.steps).timesteps[: self.predictions(schedule)]]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for the provenance of the maps."""
        return {"latents": "inversion", "timesteps": self.timesteps, "inversion_steps": self.steps}

    def views(self, latents: torch.Tensor, schedule: Schedule, predict: Predict) -> list[View]:
        """Return one view per timestep: the latents (1, ...) of the clip, inverted to the timestep."""
        inverse = schedule.inverse(self.steps)
        latents = schedule.presented(latents, 0)
        passed = {}
        for timestep in inverse.timesteps[: self.predictions(schedule)].tolist():
            latents = inverse.step(predict(latents, timestep), timestep, latents).prev_sample
            passed[timestep] = latents
        return [(passed[timestep], timestep) for timestep in self.timesteps]


Latents = Noising | Predicted | Inversion


def draw_noise(latents: torch.Tensor, timestep: int, draws: int, seed: int) -> torch.Tensor:
    """Draw the noise of one timestep: (draws, channels, rows, columns), float32, on the device of the latents.

    A draw depends only on the seed, the timestep and its index. Additional timesteps or draws do not change it,
    and all windows of a long clip use the same noise. It is drawn on the CPU, so that it does not depend on the
    device.
    """
    key = np.random.SeedSequence((seed, timestep)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(key[0]))
    return torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in range(draws)]).to(
        latents.device
    )


def fewest_steps(timesteps: tuple[int, ...], schedule: int) -> int:
    """Return the smallest number of equal steps over a schedule that includes all given timesteps.

    Examples
    --------
    >>> fewest_steps((50, 150, 400), 1000)
    20
    """
    return schedule // math.gcd(schedule, *timesteps)
