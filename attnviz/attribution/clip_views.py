"""A real clip as the denoiser sees it: its noisy latents at some timesteps, and the texts of its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnviz.attribution.settings import settled_latents
from attnviz.attribution.texts import Texts
from attnviz.audio import SpectrogramGrid, load_audio
from attnviz.audio.files import AudioSource
from attnviz.audio.grid import CellGrid
from attnviz.capture import find_cross_attention, is_traced
from attnviz.diffusion.clip import encode, read_clip, warn_of_level
from attnviz.diffusion.noising import View
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.diffusion.windows import WIDTH, default_overlap
from attnviz.errors import CaptureError, PromptError
from attnviz.models.pipelines import inputs
from attnviz.tracing.keys import check_pipeline, token_table


@dataclass(frozen=True, eq=False)
class ClipViews:
    """A clip and its caption, as a denoiser of Stable Diffusion's anatomy gets them.

    Attributes
    ----------
    texts : Texts
        The denoiser as a function of its text.
    views : sequence of sequence of (torch.Tensor, int)
        Noisy latents (draws, ...) and timesteps, of each window of the clip.
    schedule : TrainingSchedule
    grid : SpectrogramGrid
        Grid of the whole clip.
    factor : int
        Rows and columns of the grid per row and column of the latents.
    starts : sequence of int
        First column of the grid in each window.
    log_mel : numpy.ndarray, shape (bands, columns)
        Natural-log mel spectrogram, lowest band first.
    """

    texts: Texts
    views: Sequence[Sequence[View]]
    schedule: TrainingSchedule
    grid: SpectrogramGrid
    factor: int
    starts: Sequence[int]
    log_mel: np.ndarray

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        pipe: Any,
        audio: AudioSource,
        caption: str,
        *,
        sampling_rate: int | None,
        timesteps: Sequence[int],
        draws: int,
        seed: int,
        normalize: bool,
    ) -> ClipViews:
        """Add noise to a clip, as `attnviz.explain` does with the same arguments.

        Raises
        ------
        AttnVizError
            As `attnviz.explain`.
        """
        check_caption(caption)
        check_pipeline(pipe, "asked about words")
        check_unet(pipe)
        schedule = TrainingSchedule.of(pipe.scheduler)
        noising = settled_latents(
            "noising", timesteps, draws=draws, seed=seed, inversion_steps=None, look_timestep=None,
            schedule=len(schedule),
        )  # fmt: skip
        waveform = load_audio(audio, source_rate=sampling_rate)
        column = coarsest_column(pipe)
        clip = read_clip(waveform, normalize=normalize, overlap=default_overlap(column), column=column)
        warn_of_level(waveform)
        try:
            keys, _ = pipe.encode_prompt(caption, pipe._execution_device, 1, False)
            texts = Texts.of(pipe, token_table(pipe, caption), keys)
            views = [noising.views(encode(pipe, pixels), schedule, _no_prediction) for pixels in clip.windows]
        finally:
            pipe.maybe_free_model_hooks()
        return cls(texts, views, schedule, clip.grid, int(pipe.vae_scale_factor), clip.starts, clip.log_mel)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the latents of a window."""
        rows, columns = self.views[0][0][0].shape[-2:]
        return int(rows), int(columns)

    def heard(self, window: int) -> np.ndarray:
        """Return which columns of the latents of a window are audio, (columns,) bool."""
        frame = self.grid.hop_length / self.grid.sampling_rate
        columns = self.shape[1]
        seconds = (self.starts[window] + (np.arange(columns) + 0.5) * self.factor) * frame
        return seconds <= (self.grid.seconds if self.grid.audio_seconds is None else self.grid.audio_seconds)

    @property
    def cells(self) -> CellGrid:
        """Grid of the latents of the first window."""
        seconds = SpectrogramGrid(width=WIDTH).seconds
        length = self.grid.audio_seconds
        window = SpectrogramGrid(
            **{
                **self.grid.to_dict(),
                "width": WIDTH,
                "audio_seconds": None if length is None else min(length, seconds),
            }
        )
        return window.cells(*self.shape, (float(self.factor), float(self.factor)))


def _no_prediction(samples: torch.Tensor, timestep: int) -> torch.Tensor:
    raise CaptureError("Noise is added without a prediction.")


def coarsest_column(pipe: Any) -> int:
    """Return the spectrogram columns per column of the coarsest U-Net level; each level halves the resolution."""
    return int(pipe.vae_scale_factor) * 2 ** (len(pipe.unet.config.block_out_channels) - 1)


def check_caption(caption: Any) -> None:
    """Raise unless a caption is one string with a word.

    Raises
    ------
    PromptError
        With what it is.
    """
    if not isinstance(caption, str):
        raise PromptError(f"caption={caption!r} is not a string. Give one caption for one clip.")
    inputs.check_prompts(caption)


def check_unet(pipe: Any) -> None:
    """Reject a U-Net that is being traced, or that needs inputs other than latents.

    Raises
    ------
    CaptureError
        With the reason.
    """
    if is_traced(pipe.unet):
        raise CaptureError(
            "The U-Net of the pipeline is being traced already. Call explain outside the `with trace(...)` block."
        )
    find_cross_attention(pipe.unet)  # raises for layers that cannot be observed, before the U-Net runs
    wanted, there_are = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if wanted != there_are:
        raise CaptureError(
            f"The U-Net needs {wanted} channels, but the VAE has {there_are}. Is it an inpainting model, which "
            "also needs a mask? Use a text-to-audio model."
        )
