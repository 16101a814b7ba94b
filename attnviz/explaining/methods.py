"""Ways to have a U-Net look at a real clip: noised, inverted with DDIM, or predicted clean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnviz.explaining.schedule import TrainingSchedule

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""The U-Net with the caption's keys: latents (rows, ...) and their timestep in, its prediction out, float32."""

View = tuple[torch.Tensor, int]
"""Latents (rows, ...) that are looked at, and the timestep that the U-Net is told."""


@dataclass(frozen=True)
class Noising:
    """The clip under fresh noise, at each of some timesteps.

    Parameters
    ----------
    timesteps : tuple of int
        Timesteps of the training schedule, in the order they are looked at.
    draws : int
        Noise draws a timestep, which are the rows of a view.
    seed : int
        Fixes the noise.
    """

    timesteps: tuple[int, ...]
    draws: int
    seed: int

    @property
    def rows(self) -> int:
        """Rows of each view; attention is averaged over them."""
        return self.draws

    def predictions(self, schedule: TrainingSchedule) -> int:
        """Count the calls of the U-Net before it looks."""
        return 0

    @property
    def settings(self) -> dict[str, Any]:
        """What the maps' provenance says of it."""
        return {"method": "noising", "timesteps": self.timesteps, "draws": self.draws, "seed": self.seed}

    def views(self, latents: torch.Tensor, schedule: TrainingSchedule, predict: Predict) -> list[View]:
        """Give what is looked at: the clip's latents (1, ...), noised, a view a timestep."""
        return [
            (schedule.noised(latents, draw_noise(latents, timestep, self.draws, self.seed), timestep), timestep)
            for timestep in self.timesteps
        ]


@dataclass(frozen=True)
class Predicted:
    """The clean latents that the U-Net predicts of the noised clip.

    Parameters
    ----------
    timesteps, draws, seed
        How the clip is noised; see `Noising`.
    look_timestep : int
        The timestep the U-Net is told while it looks at its prediction.

    Notes
    -----
    A view holds the prediction itself, with no noise added to it again.
    """

    timesteps: tuple[int, ...]
    draws: int
    seed: int
    look_timestep: int

    @property
    def rows(self) -> int:
        """Rows of each view; attention is averaged over them."""
        return self.draws

    def predictions(self, schedule: TrainingSchedule) -> int:
        """Count the calls of the U-Net before it looks."""
        return len(self.timesteps)

    @property
    def settings(self) -> dict[str, Any]:
        """What the maps' provenance says of it."""
        noised = Noising(self.timesteps, self.draws, self.seed).settings
        return {**noised, "method": "predicted", "look_timestep": self.look_timestep}

    def views(self, latents: torch.Tensor, schedule: TrainingSchedule, predict: Predict) -> list[View]:
        """Give what is looked at: the prediction from the clip noised to each timestep."""
        noised = Noising(self.timesteps, self.draws, self.seed).views(latents, schedule, predict)
        return [
            (schedule.clean(predict(samples, timestep), samples, timestep), self.look_timestep)
            for samples, timestep in noised
        ]


@dataclass(frozen=True)
class Inversion:
    """The latents that DDIM sampling would pass on its way to the clip.

    Parameters
    ----------
    timesteps : tuple of int
        Timesteps that are looked at, in this order; the inversion passes all of them.
    steps : int
        Steps in which the whole schedule would be inverted; it is inverted to the highest of `timesteps`.

    Notes
    -----
    The inversion pairs latents with the timestep they are taken to, as every DDIM inversion does for want of
    the next latents. What is looked at is the pair that sampling sees: latents and their own timestep.
    """

    timesteps: tuple[int, ...]
    steps: int

    @property
    def rows(self) -> int:
        """Rows of each view: nothing is drawn."""
        return 1

    def predictions(self, schedule: TrainingSchedule) -> int:
        """Count the calls of the U-Net before it looks."""
        return max(self.timesteps) // (len(schedule) // self.steps) + 1

    @property
    def settings(self) -> dict[str, Any]:
        """What the maps' provenance says of it."""
        return {"method": "inversion", "timesteps": self.timesteps, "inversion_steps": self.steps}

    def views(self, latents: torch.Tensor, schedule: TrainingSchedule, predict: Predict) -> list[View]:
        """Give what is looked at: the clip's latents (1, ...), inverted to each timestep."""
        inverse = schedule.inverse(self.steps)
        passed = {}
        for timestep in inverse.timesteps[: self.predictions(schedule)].tolist():
            latents = inverse.step(predict(latents, timestep), timestep, latents).prev_sample
            passed[timestep] = latents
        return [(passed[timestep], timestep) for timestep in self.timesteps]


Method = Noising | Predicted | Inversion


def draw_noise(latents: torch.Tensor, timestep: int, draws: int, seed: int) -> torch.Tensor:
    """Draw the noise of one timestep: (draws, channels, rows, columns), float32, on the latents' device.

    A draw depends on the seed, the timestep and its own number alone: asking for other timesteps too, or for more
    draws, changes none, and all windows of a long clip have the same. It is drawn on the CPU, so that it is the
    same for every device.
    """
    key = np.random.SeedSequence((seed, timestep)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(key[0]))
    return torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in range(draws)]).to(
        latents.device
    )


def fewest_steps(timesteps: tuple[int, ...], schedule: int) -> int:
    """Count the fewest equal steps over a schedule that pass all of some timesteps.

    Examples
    --------
    >>> fewest_steps((50, 150, 400), 1000)
    20
    """
    return schedule // math.gcd(schedule, *timesteps)
