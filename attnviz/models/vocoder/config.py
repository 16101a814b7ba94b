"""Configuration of a HiFi-GAN generator: the content of a vocoder's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from attnviz.arguments import public
from attnviz.audio.settings import MEL, MelConfig
from attnviz.errors import AudioError, CheckpointError


@public
@dataclass(frozen=True)
class HifiGanConfig:
    """Configuration of a HiFi-GAN generator; names as in the published ``config.json``.

    Parameters
    ----------
    resblock : str
        Type of the residual blocks: "1" (pairs of convolutions) or "2" (single ones).
    upsample_rates, upsample_kernel_sizes : tuple of int
        Stride and kernel of each transposed convolution; the product of the strides is `hop_size`.
    upsample_initial_channel : int
        Channels before the first stage; each stage halves them.
    resblock_kernel_sizes : tuple of int
        Kernel (odd) of each residual block of a stage.
    resblock_dilation_sizes : tuple of tuple of int
        Dilations of each residual block. A block of type "1" uses the first three, of type "2" the first two.
    num_mels : int
        Mel bands of the input.
    sampling_rate, hop_size, n_fft, win_size : int
        Parameters of the training spectrogram, in samples.
    fmin, fmax : float
        Its frequency range, in Hz.
    mel_corrections : int
        Rounds of :func:`attnviz.models.vocoder.mel_correction.correct_mel` applied to the output in evaluation
        mode. 0, as in the published files: none.
    extra : mapping
        Other entries of the file; kept and written back.

    Raises
    ------
    CheckpointError
        If a value has the wrong type, or the values contradict each other.
    """

    resblock: str
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    num_mels: int = MEL.n_mels
    sampling_rate: int = MEL.sampling_rate
    hop_size: int = MEL.hop_length
    n_fft: int = MEL.n_fft
    win_size: int = MEL.win_length
    fmin: float = MEL.fmin
    fmax: float = MEL.fmax
    mel_corrections: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The published file has a string; with an integer, the original would choose the other type.
        kind = str(self.resblock) if isinstance(self.resblock, (int, str)) else ""
        if kind not in ("1", "2"):
            raise CheckpointError(f'resblock is {self.resblock!r}; expected "1" or "2".')
        object.__setattr__(self, "resblock", kind)
        for name in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"):
            object.__setattr__(self, name, _counts(name, getattr(self, name)))
        for name in ("upsample_initial_channel", "num_mels", "sampling_rate", "hop_size"):
            object.__setattr__(self, name, _count(name, getattr(self, name)))
        if self.mel_corrections != 0:
            _count("mel_corrections", self.mel_corrections)
        if not isinstance(self.resblock_dilation_sizes, (list, tuple)):
            raise CheckpointError(
                f"resblock_dilation_sizes is {self.resblock_dilation_sizes!r}; expected a list of lists."
            )
        dilations = tuple(_counts("resblock_dilation_sizes", item) for item in self.resblock_dilation_sizes)
        object.__setattr__(self, "resblock_dilation_sizes", dilations)
        if self.fmax is None:  # HiFi-GAN's notation for half the sampling rate
            object.__setattr__(self, "fmax", self.sampling_rate / 2)
        self._check_shapes()
        try:
            mel = self.mel
        except AudioError as error:
            raise CheckpointError(f"the spectrogram settings are invalid: {error}") from error
        object.__setattr__(self, "fmin", mel.fmin)
        object.__setattr__(self, "fmax", mel.fmax)

    def _check_shapes(self) -> None:
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise CheckpointError(
                f"{len(self.upsample_rates)} upsample_rates but {len(self.upsample_kernel_sizes)} "
                "upsample_kernel_sizes; expected one for each stage."
            )
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel < rate:
                raise CheckpointError(f"upsample kernel {kernel} is smaller than its rate {rate}: it leaves gaps.")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise CheckpointError(
                f"{len(self.resblock_kernel_sizes)} resblock_kernel_sizes but "
                f"{len(self.resblock_dilation_sizes)} resblock_dilation_sizes; expected one for each block."
            )
        even = [kernel for kernel in self.resblock_kernel_sizes if kernel % 2 == 0]
        if even:
            raise CheckpointError(f"resblock_kernel_sizes contains {even}; only odd kernels keep the length.")
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise CheckpointError(
                f"upsample_initial_channel {self.upsample_initial_channel} cannot be halved "
                f"{len(self.upsample_rates)} times, once for each stage."
            )
        samples = 1
        for rate in self.upsample_rates:
            samples *= rate
        if samples != self.hop_size:
            raise CheckpointError(
                f"upsample_rates {list(self.upsample_rates)} multiply to {samples} samples a frame, but "
                f"hop_size is {self.hop_size}. Is this the vocoder of another spectrogram?"
            )

    @property
    def mel(self) -> MelConfig:
        """Parameters of the input spectrogram."""
        return MelConfig(
            sampling_rate=self.sampling_rate,
            n_fft=self.n_fft,
            win_length=self.win_size,
            hop_length=self.hop_size,
            n_mels=self.num_mels,
            fmin=self.fmin,
            fmax=self.fmax,
        )

    @classmethod
    @public
    def from_dict(cls, values: Mapping[str, Any]) -> HifiGanConfig:
        """Read the content of a ``config.json``; raise CheckpointError if it is not a vocoder's."""
        if not isinstance(values, Mapping):
            raise CheckpointError(f"a vocoder's configuration is a mapping, not a {type(values).__name__}.")
        names = [item.name for item in fields(cls) if item.name != "extra"]
        needed = names[: names.index("num_mels") + 1]
        missing = [name for name in needed if name not in values]
        if missing:
            raise CheckpointError(f"a HiFi-GAN configuration needs {needed}; missing: {missing}.")
        known = {name: values[name] for name in names if name in values}
        return cls(**known, extra={str(key): value for key, value in values.items() if key not in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a ``config.json``."""
        known = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
        lists["resblock_dilation_sizes"] = [list(item) for item in self.resblock_dilation_sizes]
        if not self.mel_corrections:  # published files do not have this field
            del lists["mel_corrections"]
        return {**lists, **self.extra}


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{name} is {value!r}; expected a positive integer.")
    return value


def _counts(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not values:
        raise CheckpointError(f"{name} is {values!r}; expected a list of positive integers.")
    return tuple(_count(name, value) for value in values)
