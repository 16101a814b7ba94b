"""Clips and masks as the image pipelines of diffusers want them."""

from __future__ import annotations

import math

import numpy as np
import torch

from attnviz.audio import MEL, fit_width, load_audio, log_mel, mel_to_image, peak_normalize
from attnviz.audio.files import AudioSource
from attnviz.errors import AudioError
from attnviz.wording import counted


def read_sources(
    audio: AudioSource | list[AudioSource],
    prompts: int,
    width: int,
    duration: float | None,
    *,
    normalize: bool = True,
) -> tuple[torch.Tensor, float]:
    """Read one clip for all prompts, or one for each, as images.

    Parameters
    ----------
    audio : path, array or tensor, or a list of them
        Files, or 1-D waveforms at 16 kHz.
    prompts : int
        Number of prompts.
    width : int
        Columns of the image.
    duration : float or None
        Seconds of audio to be kept, where that was said.
    normalize : bool
        Scale each clip to a peak of 0.95.

    Returns
    -------
    images : torch.Tensor, shape (prompts, 3, 256, width), float32
        In [0, 1]; diffusers rescales to [-1, 1] itself.
    seconds : float
        Length of the shortest clip, at most what `width` columns hold.

    Raises
    ------
    AudioError
        If a clip cannot be read, the clips do not match the prompts in number, or are of different lengths
        where no `duration` is given.
    """
    clips = list(audio) if isinstance(audio, list | tuple) else [audio]
    if len(clips) not in (1, prompts):
        raise AudioError(
            f"{counted(len(clips), 'clip')} for {counted(prompts, 'prompt')}; give one for all, or one for each."
        )
    waveforms = [load_audio(clip) for clip in clips]
    images = torch.stack([_image(peak_normalize(each) if normalize else each, width) for each in waveforms])
    most = width * MEL.hop_length / MEL.sampling_rate
    lengths = [min(len(waveform) / MEL.sampling_rate, most) for waveform in waveforms]
    if duration is None and min(lengths) < max(lengths):
        raise AudioError(
            f"The clips are {', '.join(f'{length:g}' for length in lengths)} s long, so how much audio to keep is "
            "not clear. Give duration=, for all of them, or make a call for each."
        )
    seconds = min(lengths)
    return images.expand(prompts, -1, -1, -1), seconds


def mask_image(
    span: tuple[float, float] | None,
    mask: np.ndarray | torch.Tensor | None,
    *,
    width: int,
    seconds: float,
    factor: int,
) -> torch.Tensor:
    """Make the mask image of an inpainting: 1 where the spectrogram is regenerated.

    A model redraws whole latent cells of `factor` x `factor` pixels. Diffusers, and so the original, takes each
    cell's top left pixel (its earliest frame and highest band) for the cell; whether the mask covers anything
    is judged there.

    Parameters
    ----------
    span : (float, float) or None
        Start and end in seconds. A frame is masked if its centre is in [start, end); a latent column
        (80 ms at a factor of 8) is regenerated if its earliest frame is masked.
    mask : array of shape (256, width) or None
        Lowest band first. A latent cell is regenerated if its earliest frame and highest band is 1.
    width : int
        Columns of the image, a multiple of `factor`.
    seconds : float
        Length of the clip.
    factor : int
        Pixels per latent cell, along each axis.

    Returns
    -------
    torch.Tensor, shape (1, 1, 256, width), float32
        Lowest band in the bottom row, like the image.

    Raises
    ------
    AudioError
        If none or both are given; a span is no pair of numbers, empty, backwards or outside the clip; a mask
        has the wrong shape or holds other values than 0 and 1; or no latent cell is left to draw, or to keep.
    """
    if (span is None) == (mask is None):
        raise AudioError("Give the part to regenerate once, either as span=(start, end) in seconds or as mask.")
    covered = _span_pixels(span, width, seconds) if span is not None else _checked_mask(mask, width)
    image = covered[::-1]
    cells = image[::factor, ::factor]
    if cells.all() or not cells.any():
        raise AudioError(_all_or_none(span, bool(cells.all()), factor))
    return torch.from_numpy(image.astype(np.float32))[None, None]


def _all_or_none(span: tuple[float, float] | None, everything: bool, factor: int) -> str:
    what = "The mask" if span is None else f"span={span}"
    if everything:
        return (
            f"{what} covers everything, so there is nothing to keep. Generate from text, or choose another part."
        )
    column = 1000 * factor * MEL.hop_length / MEL.sampling_rate
    return (
        f"{what} covers nothing: of no latent cell, {factor} bands by {column:g} ms, is the earliest frame and "
        f"highest band inside it. Is it narrower than a latent column of {column:g} ms? Widen or shift it."
    )


def _image(waveform: np.ndarray, width: int) -> torch.Tensor:
    image = fit_width(mel_to_image(log_mel(waveform)), width)
    return torch.from_numpy(np.repeat(image[None], 3, axis=0))


def _span_pixels(span: tuple[float, float], width: int, seconds: float) -> np.ndarray:
    try:
        start, end = span
        start, end = float(start), float(end)
    except (TypeError, ValueError) as error:
        raise AudioError(f"span={span!r} is not a pair of numbers: (start, end) in seconds.") from error
    if not (math.isfinite(start) and math.isfinite(end)) or not 0 <= start < end <= seconds:
        raise AudioError(
            f"span=({start:g}, {end:g}) is not inside the clip, which is {seconds:g} s long. Was it given in "
            "milliseconds, or end first?"
        )
    centre = (np.arange(width) + 0.5) * MEL.hop_length / MEL.sampling_rate
    return np.broadcast_to((centre >= start) & (centre < end), (MEL.n_mels, width))


def _checked_mask(mask: np.ndarray | torch.Tensor | None, width: int) -> np.ndarray:
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu()
        array = mask.float().numpy() if mask.is_floating_point() else mask.numpy()  # numpy has no bfloat16
    else:
        try:
            array = np.asarray(mask)
        except ValueError as error:
            raise AudioError(f"mask is no array: {error}.") from error
    if array.shape != (MEL.n_mels, width):
        raise AudioError(
            f"mask has the shape {array.shape}; the spectrogram has ({MEL.n_mels}, {width}) bands and frames."
        )
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise AudioError("mask holds values other than 0 and 1 (or False and True).")
    return array.astype(bool)
