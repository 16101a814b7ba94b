"""Prepare real audio as model input: the spectrogram image and its windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents

from attnviz.audio import (
    MEL,
    SpectrogramGrid,
    fit_width,
    image_to_mel,
    load_audio,
    log_mel,
    mel_to_image,
    peak_normalize,
)
from attnviz.audio.files import AudioSource
from attnviz.audio.levels import loudest_level, warn_if_clipped, warn_if_inaudible
from attnviz.diffusion.windows import WIDTH, window_starts
from attnviz.errors import AudioError
from attnviz.wording import short_repr


@dataclass(frozen=True)
class Clip:
    """Real audio prepared as model input.

    Attributes
    ----------
    image : numpy.ndarray, shape (256, width), float32
        Spectrogram image in [0, 1], with the highest frequency in row 0. Columns beyond the audio are 0 (silence).
        The width is 1024 for one window, or the extent of all windows.
    grid : SpectrogramGrid
        Grid of the image. Columns beyond the audio are padding.
    starts : tuple of int
        First column of each window, starting with 0.
    """

    image: np.ndarray
    grid: SpectrogramGrid
    starts: tuple[int, ...]

    __repr__ = short_repr

    @property
    def log_mel(self) -> np.ndarray:
        """Natural-log mel spectrogram (256, width) of the image, lowest band first."""
        return image_to_mel(self.image)

    @property
    def pixels(self) -> torch.Tensor:
        """The image (1, 3, 256, width) in [-1, 1], the input of the VAE."""
        return torch.from_numpy(self.image).expand(1, 3, -1, -1) * 2 - 1

    @property
    def windows(self) -> list[torch.Tensor]:
        """The pixels of each window, (1, 3, 256, 1024)."""
        return [self.pixels[..., start : start + WIDTH] for start in self.starts]


def read_clip(audio: AudioSource, *, normalize: bool, overlap: float, column: int) -> Clip:
    """Read a clip of any length.

    Parameters
    ----------
    audio : path, array or tensor
        A file, or samples at 16 kHz; see `attnviz.audio.load_audio`.
    normalize : bool
        Scale the whole clip to a peak of 0.95.
    overlap, column
        Placement of the windows of a long clip; see `attnviz.diffusion.windows.window_starts`.

    Raises
    ------
    AudioError
        If the clip cannot be read or is too short for a spectrogram (59 ms), or if `overlap` is out of range.

    Notes
    -----
    The spectrogram of the whole clip is computed first and then cut into windows, so that frames at the ends of a
    window include the audio beyond it.
    """
    waveform = load_audio(audio)
    starts = window_starts(MEL.frames(len(waveform)), overlap=overlap, column=column)
    width = starts[-1] + WIDTH
    mel = log_mel(peak_normalize(waveform) if normalize else waveform)
    # A resampled file may be a few samples too long. An incomplete frame has no column.
    seconds = min(len(waveform) / MEL.sampling_rate, SpectrogramGrid(width=width).seconds)
    return Clip(fit_width(mel_to_image(mel), width), SpectrogramGrid(width=width, audio_seconds=seconds), starts)


def warn_of_level(waveform: np.ndarray) -> None:
    """Warn of a clip that is inaudible or clipped.

    Warns
    -----
    InaudibleWarning, ClippingWarning
        With the level, or the time at full scale.
    """
    warn_if_inaudible(loudest_level(waveform), "The clip")
    warn_if_clipped(waveform, "The clip", "Use the original recording, if it is not clipped.")


def encode(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode a window of a clip as latents for the U-Net.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline with the VAE.
    pixels : torch.Tensor, shape (1, 3, 256, 1024)
        Window in [-1, 1].

    Returns
    -------
    torch.Tensor, shape (1, channels, rows, columns), float32
        Mean of the VAE posterior, multiplied by the scaling factor.

    Raises
    ------
    AudioError
        If the VAE returns values that are not finite, usually because of float16 overflow.

    Notes
    -----
    Difference from the audio-to-audio pipeline: that pipeline samples the posterior. Here the mean is used, so
    that the only noise is the noise added at each timestep.
    """
    pixels = pixels.to(pipe._execution_device, pipe.vae.dtype)
    mean = retrieve_latents(pipe.vae.encode(pixels), sample_mode="argmax")
    if not bool(torch.isfinite(mean).all()):
        raise AudioError(
            f"The VAE returned NaN or infinite latents in {pipe.vae.dtype}. In float16, this is an overflow: load "
            "with torch_dtype=torch.bfloat16 or torch.float32. Otherwise, a weight of the VAE is not finite."
        )
    return mean.float() * pipe.vae.config.scaling_factor
