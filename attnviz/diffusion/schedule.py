"""Training noise schedule of a model: add noise, compute predicted clean latents, and invert with DDIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from attnviz.errors import CaptureError

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class TrainingSchedule:
    """Training noise schedule of a model, independent of the scheduler used for sampling.

    Attributes
    ----------
    alphas_cumprod : torch.Tensor, shape (timesteps,)
        Share of the signal variance that remains at each timestep.
    betas : torch.Tensor, shape (timesteps,)
        Variance of the noise added at each timestep.
    prediction_type : {"epsilon", "v_prediction", "sample"}
        Prediction of the U-Net: the noise, the velocity, or the clean latents.
    set_alpha_to_one : bool
        If True, the schedule ends without noise; otherwise, with the noise of timestep 0.
    """

    alphas_cumprod: torch.Tensor
    betas: torch.Tensor
    prediction_type: str
    set_alpha_to_one: bool

    @classmethod
    def of(cls, scheduler: Any) -> TrainingSchedule:
        """Create the training schedule of a scheduler, without changing the scheduler.

        Raises
        ------
        CaptureError
            If the scheduler has no such schedule (flow matching, for example), or the prediction type is unknown.

        Notes
        -----
        ``scheduler.add_noise`` and ``scheduler.step`` are not used, because they move tensors and counters of the
        scheduler, and several schedulers store the timesteps of the last generation only.
        """
        kept, betas = (getattr(scheduler, name, None) for name in ("alphas_cumprod", "betas"))
        if not isinstance(kept, torch.Tensor) or not isinstance(betas, torch.Tensor):
            raise CaptureError(
                f"{type(scheduler).__name__} has no alphas_cumprod and betas, so the noise level of a timestep is "
                "unknown. Use a scheduler with the training schedule of the model, such as PNDMScheduler or "
                "DDIMScheduler."
            )
        prediction = scheduler.config.get("prediction_type", "epsilon")
        if prediction not in PREDICTIONS:
            raise CaptureError(
                f"The scheduler has prediction_type={prediction!r}; known are {', '.join(PREDICTIONS)}."
            )
        return cls(kept, betas, prediction, bool(scheduler.config.get("set_alpha_to_one", True)))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Add the noise of a timestep: latents (1, ...) and noise (rows, ...) give (rows, ...)."""
        kept = float(self.alphas_cumprod[timestep])
        return kept**0.5 * latents + (1 - kept) ** 0.5 * noise

    def presented(self, latents: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the latents as they are: no scheduler with such a schedule gives the U-Net scaled ones."""
        return latents

    def given(self, timestep: int) -> torch.Tensor:
        """Return the scheduler's own value of a timestep: the number itself."""
        return torch.tensor(timestep)

    def clean(self, prediction: torch.Tensor, samples: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the clean latents that correspond to a prediction of the U-Net for noisy latents."""
        ddim = DDIMScheduler(**self._settings)
        ddim.set_timesteps(len(self))
        return ddim.step(prediction, timestep, samples).pred_original_sample

    def inverse(self, steps: int) -> DDIMInverseScheduler:
        """Return a scheduler that inverts DDIM in equal steps from 0: ``0, T // steps, 2 T // steps, ...``.

        Its ``step(prediction, t, samples)`` moves latents from the noise level of the timestep before `t` (the
        clean end, for the first) to that of `t`. The prediction is for timestep `t`.
        """
        inverse = DDIMInverseScheduler(**self._settings, set_alpha_to_one=self._ends_without_noise)
        inverse.set_timesteps(steps)
        return inverse

    def sampler(self) -> DDIMScheduler:
        """Return a scheduler that samples back through the timesteps of `inverse` to the same clean end."""
        return DDIMScheduler(**self._settings, set_alpha_to_one=self._ends_without_noise)

    @property
    def _ends_without_noise(self) -> bool:
        # Without noise, the noise cannot be computed from predicted clean latents (0 / 0): start with timestep 0.
        return self.set_alpha_to_one and self.prediction_type != "sample"

    @property
    def _settings(self) -> dict[str, Any]:
        # Not from_config: for missing settings, the defaults of diffusers clip latents at 1 and shift timesteps.
        return {
            "num_train_timesteps": len(self),
            "trained_betas": self.betas.tolist(),
            "prediction_type": self.prediction_type,
            "clip_sample": False,
            "steps_offset": 0,
            "timestep_spacing": "leading",
        }
