"""A real clip as the model sees it: the spectrogram image, its windows, and how much of it is audio."""

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
from attnviz.errors import AudioError
from attnviz.explaining.windows import WIDTH, window_starts
from attnviz.pipelines.sources import AudioSource


@dataclass(frozen=True)
class Clip:
    """A real clip as the model sees it.

    Attributes
    ----------
    image : numpy.ndarray, shape (256, width), float32
        In [0, 1], the highest frequency in row 0; columns beyond the audio are 0, which is silence. It is one
        window wide (1024), or as wide as its windows reach.
    grid : SpectrogramGrid
        What second and what Hz its columns and rows are; the columns beyond the audio are padding.
    starts : tuple of int
        Columns at which its windows begin, the first of them 0.
    """

    image: np.ndarray
    grid: SpectrogramGrid
    starts: tuple[int, ...]

    @property
    def log_mel(self) -> np.ndarray:
        """Natural-log mel spectrogram (256, width) of the image, lowest band first."""
        return image_to_mel(self.image)

    @property
    def pixels(self) -> torch.Tensor:
        """The image (1, 3, 256, width) in [-1, 1], as the VAE wants it."""
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
        Whether the clip is scaled to a peak of 0.95, as a whole.
    overlap, column
        How windows of a clip that is longer than one are placed; see `attnviz.explaining.windows.window_starts`.

    Raises
    ------
    AudioError
        If it cannot be read, is too short for a spectrogram (59 ms), or the overlap cannot be.

    Notes
    -----
    The spectrogram is that of the whole clip, and cut into windows afterwards: a window's first and last frames
    hold what sounds beyond it, and no end that is not there.
    """
    waveform = load_audio(audio)
    starts = window_starts(MEL.frames(len(waveform)), overlap=overlap, column=column)
    width = starts[-1] + WIDTH
    mel = log_mel(peak_normalize(waveform) if normalize else waveform)
    # A resampled file may be a few samples too long: what does not fill a frame is in no column.
    seconds = min(len(waveform) / MEL.sample_rate, SpectrogramGrid(width=width).seconds)
    return Clip(fit_width(mel_to_image(mel), width), SpectrogramGrid(width=width, audio_seconds=seconds), starts)


def encode(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode a window of a clip as the latents the U-Net was trained on.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Its VAE does the work.
    pixels : torch.Tensor, shape (1, 3, 256, 1024)
        The window, in [-1, 1].

    Returns
    -------
    torch.Tensor, shape (1, channels, rows, columns), float32
        Mean of the VAE's posterior, times its scaling factor.

    Raises
    ------
    AudioError
        If the VAE returns values that are not finite (float16 overflow is the usual reason).

    Notes
    -----
    Differences from the audio-to-audio pipeline: it draws a sample of the posterior. Here noise is added on
    purpose, in known amounts and averaged over; a second, unstated noise has no place beside it.
    """
    pixels = pixels.to(pipe._execution_device, pipe.vae.dtype)
    mean = retrieve_latents(pipe.vae.encode(pixels), sample_mode="argmax")
    if not bool(torch.isfinite(mean).all()):
        raise AudioError(
            f"The VAE returned NaN or infinite latents in {pipe.vae.dtype}. In float16 this is an overflow: load "
            "with torch_dtype=torch.bfloat16 or torch.float32. Otherwise a weight of the VAE is not finite."
        )
    return mean.float() * pipe.vae.config.scaling_factor
