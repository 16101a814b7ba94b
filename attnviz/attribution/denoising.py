"""The denoiser of a model with the conditioning of one caption, as the model's own pipeline would call it."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from torch import nn

from attnviz.audio import SpectrogramGrid
from attnviz.capture import Changes, Conditioning, held
from attnviz.errors import CaptureError
from attnviz.models.families import STABLE_DIFFUSION, Family
from attnviz.text import TokenTable
from attnviz.tracing.family_calls import FamilyCall, FamilyCalls
from attnviz.tracing.keys import Tokens

_STEPS = ("num_inference_steps", "num_steps")
"""Names under which the calls of pipelines take the number of steps."""


@dataclass(frozen=True)
class Denoising:
    """A denoiser with the conditioning of one caption: maps latents and a timestep to a prediction.

    Attributes
    ----------
    denoiser : torch.nn.Module
    family : Family
    conditioning : Conditioning
        Embeddings of the caption, one row for each row of the latents.
    tokens : TokenTable
        Token table of the caption.
    arguments : callable
        Maps a timestep of the schedule to the arguments of the denoiser, by name, without the latents.
    positional : int
        How many arguments the pipeline passes by position, which is what hooks see.
    """

    denoiser: nn.Module
    family: Family
    conditioning: Conditioning
    tokens: TokenTable
    arguments: Callable[[int], Mapping[str, Any]]
    positional: int = 2

    @classmethod
    def of_unet(cls, unet: nn.Module, conditioning: Conditioning, tokens: TokenTable) -> Denoising:
        """Return the denoising of a U-Net that gets latents, timestep and text only, at any timestep."""
        keys = conditioning.prompt_embeds
        return cls(
            unet,
            STABLE_DIFFUSION,
            conditioning,
            tokens,
            lambda timestep: {"timestep": timestep, "encoder_hidden_states": keys, "return_dict": False},
        )

    def __call__(self, latents: torch.Tensor, timestep: int, **changes: Any) -> torch.Tensor:
        """Call the denoiser.

        Parameters
        ----------
        latents : torch.Tensor, shape (rows, ...)
            Input of the denoiser, noised and scaled by the schedule.
        timestep : int
            Timestep of the schedule.
        **changes
            Arguments of the denoiser that replace those of the pipeline.

        Returns
        -------
        torch.Tensor, shape (rows, ...), float32
            Prediction for the caption.
        """
        given = {**self.arguments(timestep), **changes}
        # A pipeline that cannot do without guidance passes several sets of rows.
        sets = max(1, len(given[self.family.states]) // len(latents))
        dtype: Any = self.denoiser.dtype
        repeated = latents.to(dtype).repeat(sets, *[1] * (latents.ndim - 1))
        given[self.family.latents] = repeated
        placed = [given.pop(name) for name in _names_of(self.denoiser)[: self.positional]]
        result = self.denoiser(*placed, **given)
        prediction = result if isinstance(result, torch.Tensor) else result[0]
        at = self.family.guidance.index("conditional") if sets > 1 else 0
        return prediction[at * len(latents) : (at + 1) * len(latents)].float()


@dataclass(frozen=True)
class Rehearsed:
    """What a pipeline passes to its denoiser for a caption.

    Attributes
    ----------
    denoising : Denoising
    shape : tuple of int
        Shape of the latents of one row.
    grid : SpectrogramGrid
        Grid of the maps.
    factor : int
        Rows and columns of the grid per row and column of the latents.
    settings : dict
        Arguments of the pipeline's call, for provenance.
    """

    denoising: Denoising
    shape: tuple[int, ...]
    grid: SpectrogramGrid
    factor: int
    settings: dict[str, Any]


def rehearse(
    pipe: Any,
    family: Family,
    caption: str,
    timesteps: Mapping[int, torch.Tensor],
    *,
    scheduler: Any,
    rows: int = 1,
    seconds: float | None = None,
    tokens: Tokens = "text",
) -> Rehearsed:
    """Run a pipeline's own call with a caption, without its denoiser, and keep what it would have passed.

    Parameters
    ----------
    pipe : object
        Pipeline of the family. It is not changed, nor is the global random state.
    family : Family
    caption : str
    timesteps : mapping of int to torch.Tensor
        Timesteps of the schedule, and the value that the scheduler has for each.
    scheduler : object
        Scheduler of the pipeline. A copy of it is used.
    rows : int
        Rows of the latents.
    seconds : float, optional
        Length to ask for; default: the pipeline's own.
    tokens : {"text", "all"}
        Keys that are kept.

    Returns
    -------
    Rehearsed

    Raises
    ------
    CaptureError
        If the pipeline refuses the call, or does not call its denoiser once for each timestep.

    Notes
    -----
    The pipeline encodes the caption, prepares masks, durations and positions, and runs its loop over the given
    timesteps. So every argument is what the pipeline itself would pass. The call is without guidance, if the
    pipeline has a guidance scale.
    """
    rehearsal = _Rehearsal(pipe, family, caption, timesteps, scheduler, rows, tokens)
    with held(rehearsal):
        rehearsal.run(seconds)
    return rehearsal.result


class _Over(Exception):  # noqa: N818  # no error: it ends the call of the pipeline
    """All timesteps were seen."""


class _Output(tuple[torch.Tensor]):
    """What a denoiser or a scheduler's step returns, by index or by name."""

    sample = prev_sample = property(lambda self: self[0])


class _Rehearsal(Changes):
    """A pipeline whose denoiser computes nothing, and whose scheduler has the given timesteps."""

    def __init__(
        self,
        pipe: Any,
        family: Family,
        caption: str,
        timesteps: Mapping[int, torch.Tensor],
        scheduler: Any,
        rows: int,
        tokens: Tokens,
    ) -> None:
        super().__init__()
        self.pipe, self.family, self.rows = pipe, family, rows
        self._caption, self._timesteps = caption, dict(timesteps)
        self._scheduler = _with_timesteps(scheduler, list(self._timesteps.values()))
        self._calls = FamilyCalls(pipe, family, tokens, self._begin, lambda call: None)
        self._denoiser = getattr(pipe, family.denoiser)
        self._names = _names_of(self._denoiser)
        self._positional = 0
        self._seen: list[dict[str, Any]] = []
        self._conditioning: Conditioning | None = None
        self._call: FamilyCall | None = None
        self._tokens: TokenTable | None = None
        self._shape: tuple[int, ...] = ()

    def _make(self) -> None:
        self._replace(self._denoiser, "forward", self._denoise)
        if hasattr(self.pipe, self.family.scheduler):
            self._replace(self.pipe, self.family.scheduler, self._scheduler)
        if isinstance(self.pipe, diffusers.DiffusionPipeline):
            self._replace(self.pipe, "_progress_bar_config", {"disable": True})
        self._enter(self._calls)

    def run(self, seconds: float | None) -> None:
        """Call the pipeline until it has passed the arguments of each timestep."""
        plain = self.pipe if self.family.call == "__call__" else getattr(self.pipe, self.family.call)
        arguments = self._arguments(plain, seconds)
        device = next(self._denoiser.parameters()).device
        devices = [] if device.type == "cpu" else [device]
        name = f"{type(self.pipe).__name__}"
        try:
            with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
                plain(**arguments)
        except _Over:
            return
        except ValueError as error:
            raise CaptureError(f"{name} refuses a clip of {seconds} s with this caption: {error}") from error
        raise CaptureError(
            f"{name} called its denoiser {len(self._seen)} times for {len(self._timesteps)} timesteps, so what it "
            "passes at each of them is not known. Does it skip timesteps?"
        )

    def _arguments(self, plain: Callable[..., Any], seconds: float | None) -> dict[str, Any]:
        kind = type(self.pipe)
        there = inspect.signature(kind.__call__ if plain is self.pipe else plain).parameters
        steps = next((name for name in _STEPS if name in there), None)
        asked = self.family.seconds.asked if self.family.seconds is not None else None
        chosen: dict[str, Any] = {"prompt": [self._caption] * self.rows}
        chosen |= {name: [there[name].default] * self.rows for name in self.family.each}
        if steps is not None:
            chosen[steps] = len(self._timesteps)
        if "guidance_scale" in there:
            chosen["guidance_scale"] = 1.0
        if asked is not None and seconds is not None:
            chosen[asked] = seconds
        if self.family.scheduler in there:
            chosen[self.family.scheduler] = self._scheduler
        return chosen

    def _begin(self, call: FamilyCall, conditioning: Conditioning, tables: list[TokenTable]) -> None:
        # One prompt, whose rows are draws of its noise.
        self._conditioning = replace(conditioning, prompts=1, draws=self.rows)
        self._call, self._tokens = call, tables[0]

    def _denoise(self, *args: Any, **kwargs: Any) -> _Output:
        """Keep the arguments of one call, and return zeros."""
        self._positional = len(args)
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        latents = given.pop(self.family.latents)
        if self._conditioning is None:
            raise CaptureError(
                f"{type(self.pipe).__name__} called its denoiser before it encoded the caption, so the keys are "
                "not known."
            )
        if self._conditioning.branches(given[self.family.states]) is not None:
            self._shape = tuple(latents.shape[1:])
            self._seen.append(given)
        if len(self._seen) == len(self._timesteps):
            raise _Over
        return _Output((torch.zeros_like(latents),))

    @property
    def result(self) -> Rehearsed:
        """What was seen."""
        if self._conditioning is None or self._call is None or self._tokens is None:
            raise CaptureError(f"{type(self.pipe).__name__} was not called.")
        seen = dict(zip(self._timesteps, self._seen, strict=True))
        return Rehearsed(
            Denoising(
                self._denoiser,
                self.family,
                self._conditioning,
                self._tokens,
                functools.partial(_at, seen),
                self._positional,
            ),
            self._shape,
            *self._calls.grid(self._call, self.family.latent_size((1, *self._shape))),
            self._call.settings,
        )


def _names_of(denoiser: nn.Module) -> list[str]:
    return list(inspect.signature(type(denoiser).forward).parameters)[1:]


def _at(seen: Mapping[int, Mapping[str, Any]], timestep: int) -> Mapping[str, Any]:
    if timestep not in seen:
        raise CaptureError(f"timestep {timestep} was not rehearsed; these were: {', '.join(map(str, seen))}.")
    return seen[timestep]


def _with_timesteps(scheduler: Any, timesteps: Sequence[torch.Tensor]) -> Any:
    """Return a copy of a scheduler that has the given timesteps, and leaves latents as they are."""
    double = copy.deepcopy(scheduler)
    own = double.set_timesteps
    values = torch.stack(list(timesteps))

    @functools.wraps(own)  # pipelines look at its parameters
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        own(*args, **kwargs)
        double.timesteps = values.to(double.timesteps.device)

    def step(prediction: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> _Output:
        return _Output((sample,))

    double.set_timesteps, double.step = set_timesteps, functools.wraps(double.step)(step)
    if hasattr(double, "scale_model_input"):  # not in flow matching
        double.scale_model_input = lambda sample, *args, **kwargs: sample
    return double
