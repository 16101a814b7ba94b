"""Convert a log-mel spectrogram to the image for the VAE, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from attnviz.arguments import public
from attnviz.audio.settings import LOG_CEILING, LOG_FLOOR, whole_number
from attnviz.errors import AudioError

Array = TypeVar("Array", np.ndarray, torch.Tensor)


@public
def mel_to_image(log_mel: Array) -> Array:
    """Scale a log-mel spectrogram to [0, 1], with low frequencies at the bottom.

    Parameters
    ----------
    log_mel : numpy.ndarray or torch.Tensor
        ``(..., bands, frames)`` natural-log mel, lowest band first.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., bands, frames)`` float32 in [0, 1], of the type and on the device of the input. 0 is ln 1e-5, 1 is
        ln 200; values outside are clamped. **Row 0 is the highest frequency.**

    Raises
    ------
    AudioError
        If the input has fewer than two axes, is empty, is not floating point, or contains NaN.

    Notes
    -----
    One channel is returned; Auffusion (arXiv 2401.01044) repeats it three times and the VAE works on [-1, 1].
    """

    def scale(mel: torch.Tensor) -> torch.Tensor:
        return ((mel - LOG_FLOOR) / (LOG_CEILING - LOG_FLOOR)).clamp(0.0, 1.0).flip(-2)

    return _through_torch("log_mel", log_mel, scale)


@public
def image_to_mel(image: Array) -> Array:
    """Invert :func:`mel_to_image`.

    Parameters
    ----------
    image : numpy.ndarray or torch.Tensor
        ``(..., rows, columns)`` in [0, 1] (values outside are clamped), with the highest frequency in row 0. The
        VAE's output lies in [-1, 1]: halve it and add 0.5 first.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., bands, frames)`` float32 natural-log mel in [ln 1e-5, ln 200], lowest band first.

    Raises
    ------
    AudioError
        If the input has fewer than two axes, is empty, is not floating point, or contains NaN.
    """

    def unscale(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.clamp(0.0, 1.0).flip(-2) * (LOG_CEILING - LOG_FLOOR) + LOG_FLOOR

    return _through_torch("image", image, unscale)


@public
def fit_width(image: Array, width: int = 1024) -> Array:
    """Crop an image at the end, or pad it there with 0 (silence), to `width` columns.

    Parameters
    ----------
    image : numpy.ndarray or torch.Tensor
        ``(..., rows, columns)`` in [0, 1].
    width : int
        Number of columns.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(..., rows, width)`` float32.

    Raises
    ------
    AudioError
        If `width` is not a positive integer, or the image is invalid for :func:`image_to_mel`.

    Notes
    -----
    Differences from the original: by default the authors' helper crops a longer spectrogram at a random position.
    Here the beginning is kept, so that second 0 of the audio is column 0. Padded columns contain no audio:
    ``SpectrogramGrid(audio_seconds=...)`` marks them.
    """
    width = whole_number("width", width)

    def fit(pixels: torch.Tensor) -> torch.Tensor:
        missing = max(0, width - pixels.shape[-1])
        return torch.nn.functional.pad(pixels[..., :width], (0, missing))

    return _through_torch("image", image, fit)


def _through_torch(name: str, array: Array, work: Callable[[torch.Tensor], torch.Tensor]) -> Array:
    """Apply `work` to `array` as float32, and return the result as the input's type of array."""
    if isinstance(array, torch.Tensor):
        return work(_checked(name, array))
    plain = np.asarray(array)
    if not np.issubdtype(plain.dtype, np.floating):
        raise AudioError(_wrong_kind(name, str(plain.dtype)))
    # Copy: torch accepts neither negative strides nor (without a warning) read-only memory.
    return work(_checked(name, torch.from_numpy(np.array(plain, dtype=np.float32, order="C")))).numpy()


def _checked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise AudioError(_wrong_kind(name, str(tensor.dtype)))
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise AudioError(
            f"{name} has the shape {tuple(tensor.shape)}; expected (..., rows, columns) with at least one of each."
        )
    if torch.isnan(tensor).any():
        raise AudioError(f"{name} contains NaN; every value must be a number. Did the model overflow in float16?")
    return tensor.float()


def _wrong_kind(name: str, dtype: str) -> str:
    return f"{name} has the type {dtype}; expected floating point. If this is an 8-bit picture, divide it by 255."
