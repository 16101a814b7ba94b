"""End a generation from noisy latents, for several texts or with guidance in some cells only, and listen to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnviz.arguments import whole_number
from attnviz.attribution.texts import Texts
from attnviz.audio import MEL
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.diffusion.windows import WIDTH
from attnviz.errors import CaptureError
from attnviz.listener.listening import listen
from attnviz.models.pipelines.mixin import AuffusionMixin


@dataclass(frozen=True)
class Continuing:
    """How a generation goes on from noisy latents: deterministically (DDIM, arXiv 2010.02502), with guidance.

    Attributes
    ----------
    pipe : AuffusionPipeline
    steps : int
        Denoising steps.
    scale : float
        Guidance scale.
    interval : (float, float)
        Interval of the timesteps with guidance, as fractions of the schedule; outside, the scale is 1.
    size : int
        Rows of a batch.
    """

    pipe: Any
    steps: int
    scale: float
    interval: tuple[float, float]
    size: int

    @classmethod
    def of(cls, pipe: Any, steps: int, scale: float | None, size: int) -> Continuing:
        """Return how a pipeline goes on, with what its checkpoint recommends if no scale is given."""
        given = {"guidance_scale": scale, "guidance_interval": None}
        settled = pipe.recommended.settle(given, "generation")
        return cls(pipe, steps, settled["guidance_scale"], settled["guidance_interval"], size)

    def ended(
        self,
        texts: Texts,
        samples: torch.Tensor,
        timestep: int,
        states: torch.Tensor,
        masks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the clean latents that a generation ends with.

        Parameters
        ----------
        texts : Texts
        samples : torch.Tensor, shape (draws, channels, rows, columns)
            Noisy latents.
        timestep : int
            Their timestep.
        states : torch.Tensor, shape (texts, keys, width)
            Embeddings of the texts.
        masks : torch.Tensor of bool, shape (texts, rows, columns), optional
            Cells in which the text acts. In all others, the prediction is that without text. Default: all cells.

        Returns
        -------
        torch.Tensor, shape (texts, draws, channels, rows, columns)
        """
        schedule = TrainingSchedule.of(self.pipe.scheduler)
        low, high = (end * len(schedule) for end in self.interval)
        count = min(self.steps, timestep + 1)
        path = np.unique(np.linspace(0, timestep, count + 1).round().astype(int))[::-1].tolist()
        latents = samples[None].expand(len(states), *samples.shape).clone()
        null = texts.null.expand(len(states), -1, -1)
        for at, after in zip(path, [*path[1:], None], strict=True):
            prediction = texts.predictions(latents, at, states, size=self.size)
            guided = low <= at < high
            if guided or masks is not None:
                unconditional = texts.predictions(latents, at, null, size=self.size)
                change = (self.scale if guided else 1.0) * (prediction - unconditional)
                prediction = unconditional + (
                    change if masks is None else change * masks[:, None, None].to(change)
                )
            latents = _ddim(schedule, latents, prediction, at, after)
        return latents

    def heard(self, latents: torch.Tensor, sounds: Sequence[str]) -> np.ndarray:
        """Return the bundled listener's probabilities (sounds, frames) of latents, the mean over draws.

        Parameters
        ----------
        latents : torch.Tensor, shape (draws, channels, rows, columns)
        sounds : sequence of str
        """
        seconds = WIDTH * MEL.hop_length / MEL.sampling_rate
        audios = self.pipe.decode_audio(latents.to(self.pipe.vae.dtype), seconds).audios
        return np.mean(
            [listen(audio).probabilities.sel(sound=list(sounds)).to_numpy() for audio in audios], axis=0
        )


def check_continuing(pipe: Any, steps: Any, scale: Any, what: str) -> None:
    """Raise unless a generation of a pipeline can be ended and listened to.

    Raises
    ------
    CaptureError
        If the pipeline makes no audio, or a setting is invalid.
    """
    whole_number("num_inference_steps", steps, most=1000, error=CaptureError)
    if not isinstance(pipe, AuffusionMixin):
        raise CaptureError(
            f"{what} needs audio to listen to, but {type(pipe).__name__} makes images. Make an "
            "AuffusionPipeline of it: AuffusionPipeline.from_pipe(pipe)."
        )
    if scale is not None and not np.isfinite(float(scale)):
        raise CaptureError(f"guidance_scale={scale!r} is not a finite number.")


def _ddim(
    schedule: TrainingSchedule, latents: torch.Tensor, prediction: torch.Tensor, at: int, after: int | None
) -> torch.Tensor:
    """Return the latents at the next timestep; the clean latents after the last."""
    clean = schedule.clean(prediction, latents, at)
    if after is None:
        return clean
    kept, next_kept = (float(schedule.alphas_cumprod[step]) for step in (at, after))
    noise = (latents - kept**0.5 * clean) / (1 - kept) ** 0.5
    return next_kept**0.5 * clean + (1 - next_kept) ** 0.5 * noise
