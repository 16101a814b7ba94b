"""The work of ``attnviz generate`` and ``attnviz doctor`` for models of other families than Auffusion's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import librosa
import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging

from attnviz.api import trace
from attnviz.audio import MEL
from attnviz.audio.levels import loudest_level, warn_if_clipped, warn_if_inaudible
from attnviz.cli.jobs import ModelChoice, RunPlace, Written, check_prompt
from attnviz.errors import AttnVizError, AudioError
from attnviz.io.choices import check_axes
from attnviz.maps import AttentionMaps
from attnviz.models.families import Family, setting
from attnviz.models.pipelines.published import ModelWithProcessor, Published
from attnviz.models.pipelines.sampling import Sampling

_LONGEST = 3600.0
_BRIEF = 2.0
"""Seconds of audio that `examine` generates, where the model can be asked."""


@dataclass(frozen=True)
class FamilyGeneration:
    """Settings of a generation; None: the default of the model."""

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    duration: float | None = None
    keep: tuple[str, ...] = ()
    method: str = "attention"

    @property
    def _given(self) -> dict[str, Any]:
        """Settings that were given, by the option of each."""
        values = {
            "--num-inference-steps": self.sampling.num_inference_steps,
            "--guidance": self.sampling.guidance_scale,
            "--guidance-interval": self.sampling.guidance_interval,
            "--negative": self.sampling.negative_prompt,
            "--duration": self.duration,
        }
        return {option: value for option, value in values.items() if value is not None}

    def record(self, family: Family) -> dict[str, Any]:
        """Return the entries for ``run.json``; the provenance of the maps holds the model's own defaults."""
        return {
            "prompt": self.prompt,
            "family": family.name,
            "seed": self.sampling.seed,
            **{option.removeprefix("--").replace("-", "_"): value for option, value in self._given.items()},
            "keep": self.keep,
            "method": self.method,
        }

    def check(self) -> None:
        """Check the settings that need no model.

        Raises
        ------
        AttnVizError
            With the value and the allowed values.
        """
        check_prompt(self.prompt, self.sampling.negative_prompt)
        self.sampling.check()
        check_axes(self.keep)
        if self.duration is not None and not 0 < self.duration <= _LONGEST:
            raise AudioError(
                f"duration={self.duration!r}: it must be above 0 s and at most {_LONGEST:g} s. Was it given in "
                "milliseconds or samples?"
            )

    def check_fit(self, published: Published) -> None:
        """Check whether a model has the settings that were given, before it is loaded.

        Raises
        ------
        AttnVizError
            With those that it does not have.
        """
        arguments = arguments_of(published)
        if unknown := [option for option in self._given if option not in arguments]:
            raise AttnVizError(
                f"{published.class_name} has no setting for {', '.join(unknown)}. Of these options it takes "
                f"{', '.join(arguments)}."
            )
        if published.family.codebooks is not None and "step" in self.keep:
            raise AttnVizError(
                f"--keep step: {published.class_name} writes each frame once, so there are no steps to keep. "
                "--keep head is possible."
            )

    def run(self, model: Any, published: Published) -> tuple[np.ndarray, int, AttentionMaps]:
        """Generate and trace.

        Returns
        -------
        audio : numpy.ndarray, shape (samples,) or (samples, channels)
        sampling_rate : int
            In Hz.
        maps : AttentionMaps

        Raises
        ------
        AttnVizError
            If the model refuses a setting.
        """
        owner = model.model if isinstance(model, ModelWithProcessor) else model
        with trace(model, keep=self.keep, method=self.method) as traced:  # type: ignore[arg-type]  # checked by trace
            try:
                if isinstance(model, ModelWithProcessor):
                    audio = self._written(model, published.family)
                else:
                    audio = self._denoised(model, published)
            except ValueError as error:
                raise AttnVizError(f"{published.class_name} refuses the settings: {error}") from error
        if published.family.seconds is None:
            raise AttnVizError(f"The sampling rate of {published.class_name} is not known.")
        rate = int(setting(owner, published.family.seconds.rate))
        channels = audio.float().cpu().numpy()
        channels = channels[0] if channels.ndim == 2 and len(channels) == 1 else channels.T
        _warn_of_level(channels, rate)
        return channels, rate, traced.maps

    def _denoised(self, pipe: Any, published: Published) -> torch.Tensor:
        """Return the waveform of a pipeline of diffusers, shape (samples,) or (channels, samples)."""
        names = arguments_of(published)
        # On the CPU whatever the device, so that a seed means the same noise everywhere.
        generator = torch.Generator().manual_seed(self.sampling.seed)
        call = {names[option]: value for option, value in self._given.items()}
        return torch.as_tensor(pipe(self.prompt, generator=generator, **call).audios[0])

    def _written(self, loaded: ModelWithProcessor, family: Family) -> torch.Tensor:
        """Return the waveform of a model of transformers, shape (channels, samples)."""
        model, processor = loaded
        call: dict[str, Any] = {}
        if self.sampling.guidance_scale is not None:
            call["guidance_scale"] = self.sampling.guidance_scale
        if self.duration is not None:
            call["max_new_tokens"] = _positions(model, family, self.duration)
        inputs = processor(text=[self.prompt], padding=True, return_tensors="pt").to(model.device)
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(self.sampling.seed)  # generate takes no generator
            return model.generate(**inputs, **call)[0]


def arguments_of(published: Published) -> dict[str, str]:
    """Return what sets each option of ``attnviz generate`` in a call of a model, for the options that it has."""
    family = published.family
    if family.codebooks is not None:
        return {"--guidance": "guidance_scale", "--duration": "max_new_tokens"}
    wanted = {
        "--num-inference-steps": "num_inference_steps",
        "--guidance": "guidance_scale",
        "--negative": "negative_prompt",
        "--duration": None if family.seconds is None else family.seconds.asked,
    }
    there = inspect.signature(published.kind.__call__).parameters
    return {option: name for option, name in wanted.items() if name is not None and name in there}


def generate(
    request: FamilyGeneration,
    published: Published,
    *,
    model: ModelChoice,
    place: RunPlace,
    warned: Sequence[str] = (),
) -> Written:
    """Generate, trace and write a run folder.

    Everything that can be checked without the weights is checked before they are loaded.

    Parameters
    ----------
    request : FamilyGeneration
    published : Published
        Checkpoint to load.
    model, place, warned
        As in `attnviz.cli.jobs.generate`.

    Raises
    ------
    AttnVizError
        If the request, checkpoint or output folder is invalid; nothing is written then.
    """
    request.check()
    request.check_fit(published)
    place.check()
    audio, rate, maps = request.run(load(published, model), published)
    log_mel = None if maps.spectrogram is None else maps.spectrogram[0, 0].to_numpy()
    record = request.record(published.family) | {"duration": len(audio) / rate, "sampling_rate": rate}
    return place.write(audio, log_mel, maps, record, model=model, warned=warned, sampling_rate=rate)


def load(published: Published, choice: ModelChoice) -> Any:
    """Load a checkpoint onto the device of a choice.

    Raises
    ------
    CheckpointError
        If it cannot be loaded.
    AttnVizError
        If the precision or device is unknown.
    """
    device, dtype = choice.settle()
    diffusers_logging.disable_progress_bar()  # of the parts; steps keep theirs
    try:
        loaded = published.load(dtype)
    finally:
        diffusers_logging.enable_progress_bar()
    if isinstance(loaded, ModelWithProcessor):
        loaded.model.to(device)
        return loaded
    loaded.set_progress_bar_config(disable=not choice.progress)
    return loaded.to(device)


def examine(published: Published, choice: ModelChoice) -> Iterator[tuple[str, str]]:
    """Check a checkpoint, one finding at a time, from the family on; see `attnviz.cli.doctor.examine`."""
    family = published.family
    yield "family", family.name
    loaded = load(published, choice)
    owner = loaded.model if isinstance(loaded, ModelWithProcessor) else loaded
    parts = dict(owner.named_children() if isinstance(owner, torch.nn.Module) else owner.components)
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            count = sum(parameter.numel() for parameter in part.parameters())
            yield name, f"{type(part).__name__}, {count / 1e6:.1f} M parameters"
    if hasattr(owner, family.scheduler):
        yield "scheduler", type(getattr(owner, family.scheduler)).__name__
    yield "settings", ", ".join(arguments_of(published))
    steps = 2 if "--num-inference-steps" in arguments_of(published) else None
    brief = _BRIEF if "--duration" in arguments_of(published) else None
    audio, rate, maps = FamilyGeneration("a dog barks", Sampling(steps), brief).run(loaded, published)
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    yield (
        "audio",
        f"{len(audio) / rate:g} s at {rate} Hz, {channels} {'channel' if channels == 1 else 'channels'}, "
        f"peak {np.abs(audio).max():.3f}",
    )
    made = f"{len(maps.timesteps)} denoiser calls" if family.codebooks is None else "each frame once"
    yield "sites", f"{len(maps.layers)} modules attend to the text, {made}; {family.denoiser}: {family.sites}"
    sizes: dict[tuple[int, ...], list[str]] = {}
    seconds = {}
    for layer in maps.layers:
        held = maps[layer]
        size = tuple(held.sizes[axis] for axis in ("freq", "time") if axis in held.sizes)
        sizes.setdefault(size, []).append(layer)
        seconds[size] = float(held["time"][1] - held["time"][0])
    ordered = sorted(sizes, reverse=True)
    yield "layers", "; ".join(f"{_size(size)}: {', '.join(sizes[size])}" for size in ordered)
    axes = "frequency x time" if maps.grid.has_freq else "time"
    yield "grids", f"{', '.join(map(_size, ordered))} ({axes}), of {maps.grid.seconds:g} s"
    yield "seconds", f"{', '.join(f'{seconds[size]:.4g}' for size in ordered)} a column"


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _positions(model: Any, family: Family, duration: float) -> int:
    """Return the positions in which a model writes a duration: its frames, and the delay of the last codebook."""
    if family.seconds is None or family.codebooks is None:
        raise AttnVizError(f"The seconds of {family.name} are not known, so a duration cannot be given.")
    rate, samples = (setting(model, name) for name in (family.seconds.rate, family.seconds.samples))
    books = int(setting(model, family.codebooks)) // int(getattr(model.decoder.config, "audio_channels", 1))
    return max(math.ceil(round(duration * rate / samples, 6)), 1) + books - 1


def _warn_of_level(audio: np.ndarray, rate: int) -> None:
    mono = audio if audio.ndim == 1 else audio.mean(axis=1)
    if rate != MEL.sampling_rate:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=MEL.sampling_rate, res_type="soxr_hq")
    warn_if_inaudible(loudest_level(mono), "The audio")
    warn_if_clipped(mono, "The audio", "Lower the guidance scale, or try another seed.")
