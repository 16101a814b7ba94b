"""A real clip as the model sees it: the spectrogram image, and how much of it is audio."""

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
from attnviz.pipelines.sources import AudioSource


@dataclass(frozen=True)
class Clip:
    """A real clip as the model sees it.

    Attributes
    ----------
    image : numpy.ndarray, shape (256, 1024), float32
        In [0, 1], the highest frequency in row 0; columns beyond the audio are 0, which is silence.
    grid : SpectrogramGrid
        What second and what Hz its columns and rows are; the columns beyond the audio are padding.
    """

    image: np.ndarray
    grid: SpectrogramGrid

    @property
    def log_mel(self) -> np.ndarray:
        """Natural-log mel spectrogram (256, 1024) of the image, lowest band first."""
        return image_to_mel(self.image)

    @property
    def pixels(self) -> torch.Tensor:
        """The image (1, 3, 256, 1024) in [-1, 1], as the VAE wants it."""
        return torch.from_numpy(self.image).expand(1, 3, -1, -1) * 2 - 1


def read_clip(audio: AudioSource, *, normalize: bool) -> Clip:
    """Read a clip that fits the spectrogram image.

    Parameters
    ----------
    audio : path, array or tensor
        A file, or samples at 16 kHz; see `attnviz.audio.load_audio`.
    normalize : bool
        Whether the clip is scaled to a peak of 0.95.

    Raises
    ------
    AudioError
        If it cannot be read, is too short for a spectrogram (59 ms), or is longer than the image.
    """
    waveform = load_audio(audio)
    grid = SpectrogramGrid()
    if MEL.frames(len(waveform)) > grid.width:
        raise AudioError(
            f"The clip is {len(waveform) / MEL.sample_rate:.2f} s long, and the spectrogram holds "
            f"{grid.seconds:g} s. Cut it into pieces first. Was an array of another sample rate than "
            f"{MEL.sample_rate} Hz given?"
        )
    mel = log_mel(peak_normalize(waveform) if normalize else waveform)
    # A resampled file may be a few samples too long: what does not fill a frame is in no column.
    seconds = min(len(waveform) / MEL.sample_rate, grid.seconds)
    return Clip(fit_width(mel_to_image(mel), grid.width), SpectrogramGrid(audio_seconds=seconds))


def encode(pipe: Any, clip: Clip) -> torch.Tensor:
    """Encode a clip as the latents the U-Net was trained on.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Its VAE does the work.
    clip : Clip
        The clip.

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
    pixels = clip.pixels.to(pipe._execution_device, pipe.vae.dtype)
    mean = retrieve_latents(pipe.vae.encode(pixels), sample_mode="argmax")
    if not bool(torch.isfinite(mean).all()):
        raise AudioError(
            f"The VAE returned NaN or infinite latents in {pipe.vae.dtype}. In float16 this is an overflow: load "
            "with torch_dtype=torch.bfloat16 or torch.float32. Otherwise a weight of the VAE is not finite."
        )
    return mean.float() * pipe.vae.config.scaling_factor
