"""What a HiFi-GAN generator is built from: the contents of a vocoder's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from attnviz.arguments import public
from attnviz.audio.settings import MEL, MelConfig
from attnviz.errors import AudioError, CheckpointError


@dataclass(frozen=True)
class HifiGanConfig:
    """What a HiFi-GAN generator is built from; names as in the published ``config.json``.

    Parameters
    ----------
    resblock : str
        Kind of the residual blocks: "1" (pairs of convolutions) or "2" (single ones).
    upsample_rates, upsample_kernel_sizes : tuple of int
        Stride and kernel of each transposed convolution; the strides multiply to `hop_size`.
    upsample_initial_channel : int
        Channels before the first stage; each stage halves them.
    resblock_kernel_sizes : tuple of int
        Kernel (odd) of each residual block of a stage.
    resblock_dilation_sizes : tuple of tuple of int
        Dilations of each residual block. A block of kind "1" uses the first three, of kind "2" the first two.
    num_mels : int
        Mel bands that go in.
    sampling_rate, hop_size, n_fft, win_size : int
        The spectrogram it was trained on (in samples).
    fmin, fmax : float
        Its band, in Hz.
    mel_corrections : int
        Rounds of :func:`attnviz.audio.mel_correction.correct_mel` that what comes out goes through, in evaluation
        mode. 0, as in the published files: none.
    extra : mapping
        Whatever else the file held; kept and written back.

    Raises
    ------
    CheckpointError
        A value is of the wrong kind, or the values contradict each other.
    """

    resblock: str
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    num_mels: int = MEL.n_mels
    sampling_rate: int = MEL.sample_rate
    hop_size: int = MEL.hop_length
    n_fft: int = MEL.n_fft
    win_size: int = MEL.win_length
    fmin: float = MEL.fmin
    fmax: float = MEL.fmax
    mel_corrections: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The published file has a string; an integer would have picked the other kind in the original.
        kind = str(self.resblock) if isinstance(self.resblock, (int, str)) else ""
        if kind not in ("1", "2"):
            raise CheckpointError(f'resblock is {self.resblock!r}; "1" or "2" is needed.')
        object.__setattr__(self, "resblock", kind)
        for name in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"):
            object.__setattr__(self, name, _counts(name, getattr(self, name)))
        for name in ("upsample_initial_channel", "num_mels", "sampling_rate", "hop_size"):
            object.__setattr__(self, name, _count(name, getattr(self, name)))
        if self.mel_corrections != 0:
            _count("mel_corrections", self.mel_corrections)
        if not isinstance(self.resblock_dilation_sizes, (list, tuple)):
            raise CheckpointError(
                f"resblock_dilation_sizes is {self.resblock_dilation_sizes!r}; a list of lists is needed."
            )
        dilations = tuple(_counts("resblock_dilation_sizes", item) for item in self.resblock_dilation_sizes)
        object.__setattr__(self, "resblock_dilation_sizes", dilations)
        if self.fmax is None:  # HiFi-GAN's way to say half the sample rate
            object.__setattr__(self, "fmax", self.sampling_rate / 2)
        self._check_shapes()
        try:
            mel = self.mel
        except AudioError as error:
            raise CheckpointError(f"the spectrogram settings cannot be: {error}") from error
        object.__setattr__(self, "fmin", mel.fmin)
        object.__setattr__(self, "fmax", mel.fmax)

    def _check_shapes(self) -> None:
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise CheckpointError(
                f"{len(self.upsample_rates)} upsample_rates but {len(self.upsample_kernel_sizes)} "
                "upsample_kernel_sizes; one for each stage is needed."
            )
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel < rate:
                raise CheckpointError(f"upsample kernel {kernel} is smaller than its rate {rate}: it leaves gaps.")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise CheckpointError(
                f"{len(self.resblock_kernel_sizes)} resblock_kernel_sizes but "
                f"{len(self.resblock_dilation_sizes)} resblock_dilation_sizes; one for each block is needed."
            )
        even = [kernel for kernel in self.resblock_kernel_sizes if kernel % 2 == 0]
        if even:
            raise CheckpointError(f"resblock_kernel_sizes holds {even}; only odd kernels keep the length.")
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
                f"hop_size is {self.hop_size}: is it the vocoder of another spectrogram?"
            )

    @property
    def mel(self) -> MelConfig:
        """The spectrogram the vocoder reads."""
        return MelConfig(
            sample_rate=self.sampling_rate,
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
        """Read the contents of a ``config.json``; CheckpointError where they are not a vocoder's."""
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
        """Return what a ``config.json`` holds."""
        known = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
        lists["resblock_dilation_sizes"] = [list(item) for item in self.resblock_dilation_sizes]
        if not self.mel_corrections:  # published files know nothing of it
            del lists["mel_corrections"]
        return {**lists, **self.extra}


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{name} is {value!r}; a positive whole number is needed.")
    return value


def _counts(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not values:
        raise CheckpointError(f"{name} holds {values!r}; a list of positive whole numbers is needed.")
    return tuple(_count(name, value) for value in values)
