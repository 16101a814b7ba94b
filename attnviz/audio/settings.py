"""The numbers of the spectrogram, kept in one place and used by the whole room."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from attnviz.arguments import public
from attnviz.errors import AudioError

LOG_FLOOR = math.log(1e-5)
"""Lowest log-mel value: magnitudes are clamped to 1e-5 before the logarithm; 0 in the image."""

LOG_CEILING = math.log(200.0)
"""Log-mel value that is 1 in the image."""


@dataclass(frozen=True)
class MelConfig:
    """How audio becomes a log-mel spectrogram.

    The defaults are Auffusion's (arXiv 2401.01044): 256 Slaney mel bands over 0-8000 Hz, a frame every 10 ms.

    Parameters
    ----------
    sample_rate : int
        Samples a second.
    n_fft : int
        Length of the transform, in samples; the window is centred in it and the rest is zero.
    win_length : int
        Length of the Hann window, in samples.
    hop_length : int
        Samples from one frame to the next.
    n_mels : int
        Mel bands, which are the rows of the image.
    fmin, fmax : float
        Lower edge of the lowest and upper edge of the highest band, in Hz.

    Raises
    ------
    AudioError
        A value is not a number of the right kind, or the values contradict each other.
    """

    sample_rate: int = 16_000
    n_fft: int = 2048
    win_length: int = 1024
    hop_length: int = 160
    n_mels: int = 256
    fmin: float = 0.0
    fmax: float = 8_000.0

    def __post_init__(self) -> None:
        for field in fields(self):
            # From __future__ annotations are strings; "int" and "float" are all there are here.
            check = whole_number if field.type == "int" else finite_number
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))
        if self.win_length > self.n_fft:
            raise AudioError(
                f"win_length {self.win_length} is longer than n_fft {self.n_fft}: the window must fit."
            )
        if self.hop_length > self.win_length:
            raise AudioError(
                f"hop_length {self.hop_length} is longer than win_length {self.win_length}: "
                "samples between two frames would never be seen."
            )
        if (self.n_fft - self.hop_length) % 2:
            raise AudioError(
                f"n_fft - hop_length is {self.n_fft - self.hop_length}, an odd number: it is padded in equal "
                "halves on both sides, so it must be even."
            )
        check_band(self.fmin, self.fmax, self.sample_rate)

    @property
    def pad(self) -> int:
        """Samples mirrored at each end before the transform: ``(n_fft - hop_length) / 2``."""
        return (self.n_fft - self.hop_length) // 2

    @property
    def shortest(self) -> int:
        """Fewest samples that can be analysed: a mirror of ``pad`` samples needs one more than that."""
        return max(self.pad + 1, self.hop_length)

    @public
    def frames(self, samples: int) -> int:
        """Return how many spectrogram columns `samples` audio samples give: one for each whole hop."""
        return samples // self.hop_length


def whole_number(name: str, value: object) -> int:
    """Return `value` as a positive int, or raise AudioError naming it."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise AudioError(f"{name} is {value!r}, a {type(value).__name__}; it must be a positive whole number.")
    number = int(value.__index__())
    if number < 1:
        raise AudioError(f"{name} is {number}; it must be at least 1.")
    return number


def finite_number(name: str, value: object) -> float:
    """Return `value` as a finite float, or raise AudioError naming it."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise AudioError(f"{name} is {value!r}, a {type(value).__name__}; it must be a number.")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise AudioError(f"{name} is {value!r}; it must be one number.") from error
    if not math.isfinite(number):
        raise AudioError(f"{name} is {number}; it must be finite.")
    return number


def check_band(fmin: float, fmax: float, sample_rate: int) -> None:
    """Raise AudioError where ``0 <= fmin < fmax <= sample_rate / 2`` does not hold."""
    if not 0 <= fmin < fmax:
        raise AudioError(f"fmin {fmin:g} Hz and fmax {fmax:g} Hz; 0 <= fmin < fmax is needed. Were they swapped?")
    if fmax > sample_rate / 2:
        raise AudioError(
            f"fmax {fmax:g} Hz is above {sample_rate / 2:g} Hz, half the sample rate of {sample_rate} Hz. "
            "Is one of them given in kHz, or meant for another sample rate?"
        )


MEL = MelConfig()
"""Auffusion's own numbers."""
