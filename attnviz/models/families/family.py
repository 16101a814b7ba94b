"""The record of a family: where text meets sound in a model, and what its axes mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from attnviz.errors import CaptureError

Setting = int | float | str | Callable[[Any], int | float]
"""A number, its dotted path below a pipeline (``"vae.config.sampling_rate"``; a list counts as a product), or a
function of the pipeline."""


@dataclass(frozen=True)
class Queries:
    """The query axis of a text attention module.

    Attributes
    ----------
    order : tuple of str
        Axes of the latents from the slowest to the fastest: ``("freq", "time")``, ``("time", "freq")`` or
        ``("time",)``.
    first_row : {"highest", "lowest"}
        Frequency of row 0.
    prefix : int or str
        Positions before the first column: a number, a path below the denoiser (``"config.num_memory_tokens"``), or
        ``"keys"`` where the queries are the keys (joint attention) and the columns come after the segments.
    patch : int or str
        Latents in one column.
    axis : int
        Axis of the latents along which columns are counted, where `order` is time alone.
    """

    order: tuple[str, ...] = ("freq", "time")
    first_row: Literal["highest", "lowest"] = "highest"
    prefix: int | str = 0
    patch: int | str = 1
    axis: int = -1

    @property
    def has_freq(self) -> bool:
        """Whether the queries have a frequency axis."""
        return "freq" in self.order

    @property
    def are_keys(self) -> bool:
        """Whether one softmax goes over text and audio (joint attention)."""
        return self.prefix == "keys"

    def on_latents(self, mask: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Lay a mask (rows, columns), the highest frequency in row 0, on latents, so that it broadcasts."""
        if not self.has_freq:
            shape = [1] * latents.ndim
            shape[self.axis] = -1
            return mask.reshape(shape)
        mask = mask.flip(0) if self.first_row == "lowest" else mask
        return mask if self.order[0] == "freq" else mask.T


@dataclass(frozen=True)
class Segment:
    """A run of neighbouring keys of one kind.

    Attributes
    ----------
    kind : str
        ``"text"`` (tokens and their padding), ``"duration"``, ``"latent"``, ``"lyrics"``, ``"timbre"`` or
        ``"audio"``.
    size : int, str or None
        Number of keys; its dotted path below the model, or an argument of what makes the embeddings, a mask whose
        true values are counted for each prompt; or None, all tokens of the text.
    """

    kind: str
    size: int | str | None = None


@dataclass(frozen=True)
class Seconds:
    """What one latent is in seconds: ``samples / rate``.

    Attributes
    ----------
    rate : int, str or callable
        Samples a second.
    samples : int, str or callable
        Samples of one latent; of one spectrogram frame where there is a frequency axis.
    asked : str or None
        Argument of the pipeline's call that asks for a length in seconds.
    bands : int or str or None
        Mel bands, where there is a frequency axis.
    low, high : float
        Ends of the mel axis in Hz.
    """

    rate: Setting
    samples: Setting
    asked: str | None = None
    bands: int | str | None = None
    low: float = 0.0
    high: float = 8000.0


@dataclass(frozen=True)
class AudioEncoding:
    """How audio becomes the latents, or codes, of a model.

    Attributes
    ----------
    encoder : str
        Attribute of the pipeline, or of the object around it.
    channels : int or str
        Channels of its waveforms. Where there is a frequency axis, it gets log-mel spectrograms instead.
    n_fft : int
        Length of the transform and of its window, in samples, for spectrograms.
    frames : int or str
        Spectrogram frames of one latent.
    scale : float or str
        Factor from what the encoder returns to the latents.
    peak : float or None
        Largest magnitude of the audio in training; None: its own level.
    longest : int, str or None
        Latents (or positions of codes) of the longest call. None: the call says.
    """

    encoder: str = "vae"
    channels: int | str = 1
    n_fft: int = 1024
    frames: int | str = 1
    scale: float | str = 1.0
    peak: float | None = None
    longest: int | str | None = None


@dataclass(frozen=True)
class Family:
    """What attnviz needs to know of a model.

    Attributes
    ----------
    name : str
    pipelines : tuple of str
        Classes of the family, by name; subclasses count.
    sites : str
        Regular expression of the whole path, below the denoiser, of each module that attends to the text.
    self_sites : str or None
        The same for modules in which the audio attends to itself alone, where `queries` is time alone: edits can
        keep their attention. Those of a U-Net are found by their kind.
    denoiser : str
        Attribute of the pipeline.
    latents, timestep, states : str
        Arguments of the denoiser: noisy latents, timestep, and the embeddings that hold the text.
    queries : Queries
    keys : tuple of Segment
        Segments of the keys, in order.
    encoder, tokenizer : str
        Attributes of the pipeline: text encoder and its tokenizer.
    encoded : str or tuple of str
        Where the embeddings come from: a method of the pipeline, or a module, whose first result they are; several
        if guided and unguided calls differ.
    call : str
        Method of the pipeline that generates.
    scheduler : str
        Attribute of the pipeline, or argument of its call.
    waveforms : str
        Argument that asks for several waveforms of each prompt.
    packed : bool
        Whether the embeddings hold all segments, with the padding of each moved behind the last.
    guidance : tuple of str
        Order of the rows of a guided call. ``("conditional",)`` where guidance makes calls of its own.
    codebooks : str or None
        Path, below the model, of the number of its codebooks, where it writes codes one position after the other,
        codebook k of frame f at position f + k. Calls are then appended along time instead of averaged.
    negated : str or None
        Flag of the attention modules under which they call the kernel twice and subtract the second result.
    caption : str or None
        Text of a template after which the prompt stands; None where the prompt is encoded as it is.
    formatted : str or None
        Method of the pipeline that makes the encoded text: its first result. None: the prompt, or what `encoded`
        is called with.
    seconds : Seconds or None
    audio : AudioEncoding or None
        None where real audio cannot be encoded.
    each : tuple of str
        Arguments of the pipeline's call that hold one value for each prompt.
    alone : bool
        Whether the call makes the latents of one prompt, however many prompts it gets.
    must_be : mapping of str to (object, str)
        Arguments of the pipeline's call, the one value that maps are defined for, and why.
    """

    name: str
    pipelines: tuple[str, ...]
    sites: str
    denoiser: str = "transformer"
    self_sites: str | None = None
    latents: str = "hidden_states"
    timestep: str = "timestep"
    states: str = "encoder_hidden_states"
    queries: Queries = field(default_factory=Queries)
    keys: tuple[Segment, ...] = (Segment("text"),)
    encoder: str = "text_encoder"
    tokenizer: str = "tokenizer"
    encoded: str | tuple[str, ...] = "encode_prompt"
    call: str = "__call__"
    scheduler: str = "scheduler"
    waveforms: str = "num_waveforms_per_prompt"
    packed: bool = False
    guidance: tuple[str, ...] = ("unconditional", "conditional")
    codebooks: str | None = None
    negated: str | None = None
    caption: str | None = None
    formatted: str | None = None
    seconds: Seconds | None = None
    audio: AudioEncoding | None = None
    each: tuple[str, ...] = ()
    alone: bool = False
    must_be: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    def is_of(self, model: object) -> bool:
        """Whether a pipeline is of this family."""
        return any(kind.__name__ in self.pipelines for kind in type(model).__mro__)

    def is_site(self, path: str, module: nn.Module) -> bool:
        """Whether a module below the denoiser attends to the text."""
        return re.fullmatch(self.sites, path) is not None and getattr(module, "is_cross_attention", True)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of what the embeddings come from."""
        return (self.encoded,) if isinstance(self.encoded, str) else self.encoded

    def signs(self, attention: nn.Module) -> tuple[int, ...]:
        """Return the sign of each kernel call that a module makes in one forward pass."""
        return (1, -1) if self.negated is not None and getattr(attention, self.negated) else (1,)

    def columns(self, denoiser: nn.Module, latents: int, positions: int, keys: int) -> slice:
        """Return the query positions that are columns of the latents.

        Parameters
        ----------
        denoiser : torch.nn.Module
        latents : int
            Latents along time.
        positions : int
            Query positions there are.
        keys : int
            Keys before the audio's own, where the attention is joint.

        Raises
        ------
        CaptureError
            The positions are not the prefix followed by one column for each patch of latents.
        """
        patch = _number(denoiser, self.queries.patch)
        prefix = keys if self.queries.are_keys else _number(denoiser, self.queries.prefix)
        columns = math.ceil(latents / patch)
        if prefix + columns != positions:
            raise CaptureError(
                f"{latents} latents make {columns} columns in {self.name}, after {prefix} other positions; "
                f"{positions} positions attend, so which of them are columns is not known."
            )
        return slice(prefix, prefix + columns)

    def latent_size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return the rows along frequency and the columns along time of a batch of latents of a shape."""
        if not self.queries.has_freq:
            return 1, int(shape[self.queries.axis])
        first, second = int(shape[-2]), int(shape[-1])
        return (second, first) if self.queries.order == ("time", "freq") else (first, second)

    def patch(self, denoiser: nn.Module) -> int:
        """Return the latents in one column."""
        return _number(denoiser, self.queries.patch)


def setting(owner: object, value: Setting | Sequence[int]) -> float:
    """Return a number, look it up at a dotted path, or compute it; numbers in a list are multiplied."""
    found: Any = value(owner) if callable(value) else value
    if isinstance(value, str):
        found = owner
        for name in value.split("."):
            found = found[name] if isinstance(found, Mapping) and name in found else getattr(found, name)
    return math.prod(found) if isinstance(found, list | tuple) else found


def _number(owner: object, value: Setting) -> int:
    return int(setting(owner, value))
