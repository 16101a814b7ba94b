"""Encode arrays as text with 8 bits per value and a scale."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import soundfile

from attnviz.audio import MEL, to_int16

LEVELS = 254
"""Number of steps from the minimum to the maximum: byte 0 is a value that is not finite, 1 to 255 are values."""


def quantise(values: np.ndarray, limits: tuple[float, float] | None = None) -> tuple[np.ndarray, float, float]:
    """Quantise an array to bytes: ``value = low + (byte - 1) / 254 * (high - low)`` up to half a step.

    Parameters
    ----------
    values : numpy.ndarray
        Array of any shape. Non-finite values become byte 0.
    limits : (float, float), optional
        Scale to which values are clipped. By default, the minimum and maximum of the finite values.

    Returns
    -------
    bytes : numpy.ndarray of uint8
    low, high : float
        The scale; both 0 if no value is finite.

    Examples
    --------
    >>> quantise(np.array([0.5, np.nan, 1.0, 0.75]))
    (array([  1,   0, 255, 128], dtype=uint8), 0.5, 1.0)
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8), 0.0, 0.0
    low, high = limits or (float(values[finite].min()), float(values[finite].max()))
    share = (np.where(finite, np.clip(values, low, high), low) - low) / ((high - low) or 1.0)
    return np.where(finite, 1 + np.round(share * LEVELS), 0).astype(np.uint8), low, high


def array_text(data: np.ndarray) -> str:
    """Encode an array of bytes as base64, in row-major order."""
    return base64.b64encode(np.ascontiguousarray(data, dtype=np.uint8).tobytes()).decode("ascii")


def audio_text(audio: np.ndarray) -> dict[str, Any]:
    """Encode a clip at 16 kHz as 16-bit WAV in base64, which every browser can play and seek exactly.

    FLAC is half as large, but seeking fails in some cases in Chromium (observed in version 156).
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(audio), MEL.sampling_rate, format="WAV", subtype="PCM_16")
    return {
        "type": "audio/wav",
        "seconds": len(audio) / MEL.sampling_rate,
        "data": base64.b64encode(buffer.getvalue()).decode("ascii"),
    }
