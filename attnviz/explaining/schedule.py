"""The noise schedule a model was trained on: noising, the predicted clean latents, and DDIM inversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from attnviz.errors import CaptureError

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class TrainingSchedule:
    """The noise schedule of a model, whatever scheduler it samples with.

    Attributes
    ----------
    alphas_cumprod : torch.Tensor, shape (timesteps,)
        Share of the signal's variance that is left at each timestep.
    betas : torch.Tensor, shape (timesteps,)
        Variance of the noise that each timestep adds.
    prediction_type : {"epsilon", "v_prediction", "sample"}
        What the U-Net predicts: the noise, the velocity, or the clean latents.
    set_alpha_to_one : bool
        Whether the clean end of the schedule is no noise at all, or the noise of timestep 0.
    """

    alphas_cumprod: torch.Tensor
    betas: torch.Tensor
    prediction_type: str
    set_alpha_to_one: bool

    @classmethod
    def of(cls, scheduler: Any) -> TrainingSchedule:
        """Read the schedule a scheduler was made for, leaving the scheduler as it is.

        Raises
        ------
        CaptureError
            If it has none (flow matching, for example), or the U-Net predicts something else.

        Notes
        -----
        ``scheduler.add_noise`` and ``scheduler.step`` are not called: they move the scheduler's own tensors
        and counters, and several schedulers know only the timesteps of the last generation.
        """
        kept, betas = (getattr(scheduler, name, None) for name in ("alphas_cumprod", "betas"))
        if not isinstance(kept, torch.Tensor) or not isinstance(betas, torch.Tensor):
            raise CaptureError(
                f"{type(scheduler).__name__} has no alphas_cumprod and betas, so how much noise belongs to a "
                "timestep is not known. Use a scheduler of the model's own training schedule, such as "
                "PNDMScheduler or DDIMScheduler."
            )
        prediction = scheduler.config.get("prediction_type", "epsilon")
        if prediction not in PREDICTIONS:
            raise CaptureError(
                f"The scheduler says that the U-Net predicts {prediction!r}; known are {', '.join(PREDICTIONS)}."
            )
        return cls(kept, betas, prediction, bool(scheduler.config.get("set_alpha_to_one", True)))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Add the noise of a timestep: latents (1, ...) and noise (rows, ...) give (rows, ...)."""
        kept = float(self.alphas_cumprod[timestep])
        return kept**0.5 * latents + (1 - kept) ** 0.5 * noise

    def clean(self, prediction: torch.Tensor, samples: torch.Tensor, timestep: int) -> torch.Tensor:
        """Turn the U-Net's prediction for noisy latents into the clean latents it amounts to."""
        ddim = DDIMScheduler(**self._settings)
        ddim.set_timesteps(len(self))
        return ddim.step(prediction, timestep, samples).pred_original_sample

    def inverse(self, steps: int) -> DDIMInverseScheduler:
        """Make a scheduler that inverts DDIM in equal steps from timestep 0: ``0, T // steps, 2 T // steps, ...``.

        Its ``step(prediction, t, samples)`` takes latents at the noise of the timestep before `t` (the clean end,
        for the first) to the noise of `t`, and the U-Net is to predict at `t`.
        """
        inverse = DDIMInverseScheduler(**self._settings, set_alpha_to_one=self._ends_without_noise)
        inverse.set_timesteps(steps)
        return inverse

    def sampler(self) -> DDIMScheduler:
        """Make a scheduler that samples back through the timesteps `inverse` passes, to the same clean end."""
        return DDIMScheduler(**self._settings, set_alpha_to_one=self._ends_without_noise)

    @property
    def _ends_without_noise(self) -> bool:
        # Where there is no noise, predicted clean latents tell nothing of it (0 / 0): begin with timestep 0's.
        return self.set_alpha_to_one and self.prediction_type != "sample"

    @property
    def _settings(self) -> dict[str, Any]:
        # Built anew and not by from_config: diffusers' default for what a scheduler does not say is to clip the
        # latents at 1, and to shift every timestep by what "leading" sampling shifts it.
        return {
            "num_train_timesteps": len(self),
            "trained_betas": self.betas.tolist(),
            "prediction_type": self.prediction_type,
            "clip_sample": False,
            "steps_offset": 0,
            "timestep_spacing": "leading",
        }
