"""Noise schedules in continuous time: flow matching, and the preconditioned schedules of EDM."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.errors import CaptureError

THOUSANDTHS = 1000
"""Timesteps of a continuous schedule: thousandths of the way from the clip to noise."""


class Schedule(Protocol):
    """What explaining asks of a noise schedule; its samples are inputs of the denoiser."""

    def __len__(self) -> int:
        """Return the number of timesteps, from 0, the least noisy."""

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Add the noise of a timestep: latents (1, ...) and noise (rows, ...) give (rows, ...)."""

    def presented(self, latents: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return latents, without adding noise, as the denoiser's input at a timestep."""

    def clean(self, prediction: torch.Tensor, samples: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the clean latents that correspond to a prediction for noisy samples."""

    def inverse(self, steps: int) -> Any:
        """Return what inverts sampling in equal steps; see `TrainingSchedule.inverse`."""

    def given(self, timestep: int) -> torch.Tensor:
        """Return the scheduler's own value of a timestep, a scalar."""


def schedule_of(scheduler: Any) -> Schedule:
    """Return the noise schedule of a scheduler, without changing the scheduler.

    Raises
    ------
    CaptureError
        If the noise level of a timestep is not known.
    """
    if hasattr(scheduler, "precondition_noise"):
        return EdmSchedule(scheduler)
    if hasattr(scheduler, "scale_noise"):
        return FlowSchedule.of(scheduler)
    return TrainingSchedule.of(scheduler)


@dataclass(frozen=True)
class FlowSchedule:
    """Flow matching: noise and latents are mixed linearly, and the denoiser predicts the velocity between them.

    Attributes
    ----------
    scale : float
        The scheduler's value of pure noise, or of the clip where time runs the other way.
    inverted : bool
        Whether the denoiser's time runs from noise (0) to the clip.

    Notes
    -----
    Timestep `t` mixes the share ``t / 1000`` of noise. Shifting the sampling steps does not change the share that
    belongs to a value of time. Source: Lipman et al., Flow Matching for Generative Modeling (arXiv 2210.02747).
    """

    scale: float
    inverted: bool

    @classmethod
    def of(cls, scheduler: Any) -> FlowSchedule:
        """Return the schedule of a flow-matching scheduler of diffusers."""
        config = scheduler.config
        return cls(float(config["num_train_timesteps"]), bool(config.get("invert_sigmas", False)))

    def __len__(self) -> int:
        return THOUSANDTHS

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Mix in the noise of a timestep: latents (1, ...) and noise (rows, ...) give (rows, ...)."""
        share = timestep / THOUSANDTHS
        return (1 - share) * latents + share * noise

    def presented(self, latents: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the latents as they are."""
        return latents

    def clean(self, prediction: torch.Tensor, samples: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the clean latents that correspond to a predicted velocity."""
        return samples - timestep / THOUSANDTHS * self._towards_noise(prediction)

    def inverse(self, steps: int) -> Any:
        """Return Euler's method from the clip to noise in equal steps."""

        def move(samples: torch.Tensor, prediction: torch.Tensor, low: int, high: int) -> torch.Tensor:
            return samples + (high - low) / THOUSANDTHS * self._towards_noise(prediction)

        return _Inverse(steps, move)

    def given(self, timestep: int) -> torch.Tensor:
        """Return the scheduler's time."""
        share = timestep / THOUSANDTHS
        return torch.tensor((1 - share if self.inverted else share) * self.scale, dtype=torch.float32)

    def _towards_noise(self, prediction: torch.Tensor) -> torch.Tensor:
        return -prediction if self.inverted else prediction


@dataclass(frozen=True)
class EdmSchedule:
    """EDM: noise of a standard deviation `sigma` is added, and the scheduler scales the denoiser's input.

    Attributes
    ----------
    scheduler : object
        A scheduler of diffusers with ``precondition_inputs``, ``precondition_noise`` and ``precondition_outputs``,
        which are functions of `sigma` alone.

    Notes
    -----
    The scaled input is a rotation from the latents to noise by the angle ``atan(sigma / sigma_data)``. Timestep
    `t` is the share ``t / 1000`` of the quarter turn: for Stable Audio, ``t / 1000`` is the time that its denoiser
    is given. Source: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (arXiv
    2206.00364).
    """

    scheduler: Any

    def __len__(self) -> int:
        return THOUSANDTHS

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Add the noise of a timestep, and scale: latents (1, ...) and noise (rows, ...) give (rows, ...)."""
        return self.scheduler.precondition_inputs(latents + self._sigma(timestep) * noise, self._sigma(timestep))

    def presented(self, latents: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the latents, scaled."""
        return self.scheduler.precondition_inputs(latents, self._sigma(timestep))

    def clean(self, prediction: torch.Tensor, samples: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the clean latents that correspond to a prediction for scaled noisy samples."""
        sigma = self._sigma(timestep)
        noisy = samples / self.scheduler.precondition_inputs(torch.ones(()), sigma).to(samples)
        return self.scheduler.precondition_outputs(noisy, prediction, sigma)

    def inverse(self, steps: int) -> Any:
        """Return the inversion of DDIM in equal steps of the angle."""

        def move(samples: torch.Tensor, prediction: torch.Tensor, low: int, high: int) -> torch.Tensor:
            angle = self._angle(high) - self._angle(low)
            return math.cos(angle) * samples + math.sin(angle) * self._velocity(prediction)

        return _Inverse(steps, move)

    def given(self, timestep: int) -> torch.Tensor:
        """Return what the scheduler makes of the noise level.

        Raises
        ------
        CaptureError
            If that is not finite.
        """
        value = self.scheduler.precondition_noise(torch.tensor(self._sigma(timestep), dtype=torch.float32))
        if not bool(torch.isfinite(value)):
            raise CaptureError(
                f"timestep {timestep} has no noise, and {type(self.scheduler).__name__} takes the logarithm of "
                "the noise level. Use timesteps from 1 on; for latents='predicted', look_timestep=1; inversion "
                "begins without noise, so it is not possible."
            )
        return value

    def _velocity(self, prediction: torch.Tensor) -> torch.Tensor:
        return prediction if self.scheduler.config.prediction_type == "v_prediction" else -prediction

    def _angle(self, timestep: int) -> float:
        return math.pi / 2 * timestep / THOUSANDTHS

    def _sigma(self, timestep: int) -> float:
        return float(self.scheduler.config.sigma_data) * math.tan(self._angle(timestep))


class _Inverse:
    """Steps from the clip to noise, with the interface of ``DDIMInverseScheduler``."""

    def __init__(self, steps: int, move: Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]) -> None:
        self._stride = THOUSANDTHS // steps
        self.timesteps = torch.arange(steps) * self._stride
        self._move = move

    def step(self, prediction: torch.Tensor, timestep: int, samples: torch.Tensor) -> Any:
        """Move samples from the timestep before `timestep` to it."""
        moved = self._move(samples, prediction, max(0, timestep - self._stride), timestep)
        return SimpleNamespace(prev_sample=moved)
