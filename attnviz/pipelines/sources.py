"""Clips and masks as the image pipelines of diffusers want them."""

from __future__ import annotations

import math
import os

import numpy as np
import torch

from attnviz.audio import MEL, fit_width, load_audio, log_mel, mel_to_image, peak_normalize
from attnviz.errors import AudioError

AudioSource = str | os.PathLike[str] | np.ndarray | torch.Tensor


def read_sources(audio: AudioSource | list[AudioSource], prompts: int, width: int) -> tuple[torch.Tensor, float]:
    """Read one clip for all prompts, or one for each, as images.

    Parameters
    ----------
    audio : path, array or tensor, or a list of them
        Files, or 1-D waveforms at 16 kHz.
    prompts : int
        Number of prompts.
    width : int
        Columns of the image.

    Returns
    -------
    images : torch.Tensor, shape (prompts, 3, 256, width), float32
        In [0, 1]; diffusers rescales to [-1, 1] itself.
    seconds : float
        Length of the longest clip, at most what `width` columns hold.

    Raises
    ------
    AudioError
        If a clip cannot be read, or the clips do not match the prompts in number.
    """
    clips = list(audio) if isinstance(audio, list | tuple) else [audio]
    if len(clips) not in (1, prompts):
        raise AudioError(f"{len(clips)} clips for {prompts} prompts; give one for all, or one for each.")
    waveforms = [load_audio(clip) for clip in clips]
    images = torch.stack([_image(waveform, width) for waveform in waveforms])
    longest = max(len(waveform) for waveform in waveforms) / MEL.sample_rate
    seconds = min(longest, width * MEL.hop_length / MEL.sample_rate)
    return images.expand(prompts, -1, -1, -1), seconds


def mask_image(
    span: tuple[float, float] | None,
    mask: np.ndarray | torch.Tensor | None,
    *,
    width: int,
    seconds: float,
) -> torch.Tensor:
    """Make the mask image of an inpainting: 1 where the spectrogram is drawn anew.

    Parameters
    ----------
    span : (float, float) or None
        Start and end in seconds. A column is drawn anew where its centre lies in the span.
    mask : array of shape (256, width) or None
        Lowest band first.
    width : int
        Columns of the image.
    seconds : float
        Length of the clip.

    Returns
    -------
    torch.Tensor, shape (1, 1, 256, width), float32
        Lowest band in the bottom row, like the image.

    Raises
    ------
    AudioError
        If none or both are given; a span is empty, backwards or outside the clip; a mask has the wrong
        shape, holds other values than 0 and 1, or covers everything or nothing.
    """
    if (span is None) == (mask is None):
        raise AudioError("Give what is to be drawn anew once: either span=(start, end) in seconds, or mask.")
    covered = _span_columns(span, width, seconds) if span is not None else _checked_mask(mask, width)
    if covered.all() or not covered.any():
        what = "everything" if covered.all() else "nothing"
        raise AudioError(
            f"The mask covers {what}, so there is nothing to {'keep' if covered.all() else 'draw'}. Generate "
            "from text, or choose another part."
        )
    return torch.from_numpy(covered[::-1].astype(np.float32))[None, None]


def _image(waveform: np.ndarray, width: int) -> torch.Tensor:
    image = fit_width(mel_to_image(log_mel(peak_normalize(waveform))), width)
    return torch.from_numpy(np.repeat(image[None], 3, axis=0))


def _span_columns(span: tuple[float, float], width: int, seconds: float) -> np.ndarray:
    start, end = (float(edge) for edge in span)
    if not (math.isfinite(start) and math.isfinite(end)) or not 0 <= start < end <= seconds:
        raise AudioError(
            f"span=({start:g}, {end:g}) is not inside the clip, which is {seconds:g} s long. Was it given in "
            "milliseconds, or end first?"
        )
    centre = (np.arange(width) + 0.5) * MEL.hop_length / MEL.sample_rate
    return np.broadcast_to((centre >= start) & (centre < end), (MEL.n_mels, width))


def _checked_mask(mask: np.ndarray | torch.Tensor | None, width: int) -> np.ndarray:
    array = np.asarray(mask)
    if array.shape != (MEL.n_mels, width):
        raise AudioError(
            f"mask has the shape {array.shape}; the spectrogram has ({MEL.n_mels}, {width}) bands and frames."
        )
    if not np.isin(array, (0, 1)).all():
        raise AudioError("mask holds values other than 0 and 1 (or False and True).")
    return array.astype(bool)
