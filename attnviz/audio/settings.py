"""Parameters of the log-mel spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from attnviz import arguments
from attnviz.arguments import public
from attnviz.errors import AudioError

LOG_FLOOR = math.log(1e-5)
"""Lowest log-mel value: magnitudes are clamped to 1e-5 before the logarithm. It is 0 in the image."""

LOG_CEILING = math.log(200.0)
"""Log-mel value of 1 in the image."""


@public
@dataclass(frozen=True)
class MelConfig:
    """Parameters of the log-mel spectrogram.

    The defaults are Auffusion's (arXiv 2401.01044): 256 Slaney mel bands over 0-8000 Hz, a frame every 10 ms.

    Parameters
    ----------
    sampling_rate : int
        Sampling rate in Hz.
    n_fft : int
        Length of the transform, in samples; the window is centred in it and the rest is zero.
    win_length : int
        Length of the Hann window, in samples.
    hop_length : int
        Samples from one frame to the next.
        Number of mel bands (rows of the image).
        Mel bands, which are the rows of the image.
    fmin, fmax : float
        Lower edge of the lowest and upper edge of the highest band, in Hz.

    Raises
    ------
    AudioError
        If a value has the wrong type, or the values contradict each other.
    """

    sampling_rate: int = 16_000
    n_fft: int = 2048
    win_length: int = 1024
    hop_length: int = 160
    n_mels: int = 256
    fmin: float = 0.0
    fmax: float = 8_000.0

    def __post_init__(self) -> None:
        for field in fields(self):
            # With future annotations the types are strings; only "int" and "float" occur here.
            check = whole_number if field.type == "int" else finite_number
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))
        if self.win_length > self.n_fft:
            raise AudioError(
                f"win_length {self.win_length} is longer than n_fft {self.n_fft}: the window must fit."
            )
        if self.hop_length > self.win_length:
            raise AudioError(
                f"hop_length {self.hop_length} is longer than win_length {self.win_length}: "
                "samples between two frames would be skipped."
            )
        if (self.n_fft - self.hop_length) % 2:
            raise AudioError(
                f"n_fft - hop_length is {self.n_fft - self.hop_length}; it must be even, because each side is "
                "padded by half of it."
            )
        check_band(self.fmin, self.fmax, self.sampling_rate)

    @property
    def pad(self) -> int:
        """Number of samples mirrored at each end before the transform: ``(n_fft - hop_length) / 2``."""
        return (self.n_fft - self.hop_length) // 2

    @property
    def shortest(self) -> int:
        """Minimal number of samples: mirroring ``pad`` samples requires one more than that."""
        return max(self.pad + 1, self.hop_length)

    @public
    def frames(self, samples: int) -> int:
        """Return the number of spectrogram columns of `samples` audio samples: one for each complete hop."""
        return samples // self.hop_length


MOST = 1_000_000  # columns of 10 ms are 2.8 hours, and no sampling rate is higher


def whole_number(name: str, value: object, most: int = MOST) -> int:
    """Return `value` as an int from 1 to `most`, or raise an AudioError with its name."""
    return arguments.whole_number(name, value, most=most, error=AudioError)


def finite_number(name: str, value: object) -> float:
    """Return `value` as a finite float, or raise an AudioError with its name."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise AudioError(f"{name} is {value!r}, a {type(value).__name__}; it must be a number.")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name} is {value!r}; it must be one number.") from error
    if not math.isfinite(number):
        raise AudioError(f"{name} is {number}; it must be finite.")
    return number


def check_band(fmin: float, fmax: float, sampling_rate: int) -> None:
    """Raise AudioError unless ``0 <= fmin < fmax <= sampling_rate / 2``."""
    if not 0 <= fmin < fmax:
        raise AudioError(f"fmin is {fmin:g} Hz, fmax {fmax:g} Hz; expected 0 <= fmin < fmax. Are they swapped?")
    if fmax > sampling_rate / 2:
        raise AudioError(
            f"fmax {fmax:g} Hz is above {sampling_rate / 2:g} Hz, half the sampling rate of {sampling_rate} Hz. "
            "Is one of them in kHz, or meant for another sampling rate?"
        )


MEL = MelConfig()
"""Parameters of Auffusion."""
