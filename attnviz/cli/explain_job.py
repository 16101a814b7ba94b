"""Explain a real clip: read it and its events, compute maps, write a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from attnviz.alignment import Alignment, align
from attnviz.alignment.phrases import phrase_events
from attnviz.attribution import METHODS
from attnviz.attribution.explanation import explain
from attnviz.attribution.method import PREDICTION
from attnviz.attribution.settings import check_without_noise
from attnviz.audio import MEL, load_audio
from attnviz.capture import find_cross_attention
from attnviz.capture.identity import Digests, weights_digest
from attnviz.capture.layers import find_sites
from attnviz.cli import family_job
from attnviz.cli.jobs import ModelChoice, RunPlace, Written, check_mappable, check_prompt
from attnviz.diffusion.model_audio import read_rate
from attnviz.errors import MapsError
from attnviz.events import events_of, read_events
from attnviz.io.choices import check_axes
from attnviz.maps import AttentionMaps
from attnviz.maps.readouts import find_layer
from attnviz.maps.settling import FITTED, settled
from attnviz.maps.sharp import SHARP
from attnviz.models.families import Family
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.models.pipelines.published import ModelWithProcessor
from attnviz.tracing.trace import provenance

_LATENTS = ("latents", "timesteps", "draws", "seed", "inversion_steps", "look_timestep", "overlap")


@dataclass(frozen=True)
class Explanation:
    """Arguments of `attnviz explain`; `prompt` is the caption, and None selects a default of `attnviz.explain`."""

    clip: Path
    prompt: str
    events: Path | None = None
    method: str = "attention"
    latents: str = "noising"
    timesteps: tuple[int, ...] = ()
    draws: int | None = None
    seed: int | None = None
    inversion_steps: int | None = None
    look_timestep: int | None = None
    overlap: float | None = None
    normalize: bool = True
    randomize: int | str = 0
    randomize_seed: int | None = None
    keep: tuple[str, ...] = ()
    readout: str = "mean"

    @property
    def record(self) -> dict[str, Any]:
        """Record for ``run.json``."""
        paths = {"clip": str(self.clip), "events": None if self.events is None else str(self.events)}
        return {**asdict(self), **paths}

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `attnviz.explain`."""
        settings = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("clip", "prompt", "events", "readout")
        }
        return {name: value for name, value in settings.items() if value not in (None, ())}


class Scored(NamedTuple):
    """The events of a clip, and the scores of its maps against them."""

    events: pd.DataFrame
    alignment: Alignment


def explain_to_run(
    request: Explanation,
    *,
    model: ModelChoice,
    place: RunPlace,
    warned: Sequence[str] = (),
) -> tuple[Written, Scored | None]:
    """Explain a clip, score its maps if events are given, and write a run folder.

    The caption, the clip, its events and the output folder are checked before a model is loaded.

    Parameters
    ----------
    request, model
        Settings and checkpoint.
    place : RunPlace
        Run folder to write. Its ``audio.wav`` is the clip at its own level, at the rate of the model (16 kHz for
        Auffusion) with one channel. The model gets the clip scaled to a peak of 0.95 (AudioLDM2: 0.5), unless
        normalisation is disabled; maps and spectrogram are of what the model gets.
    warned : sequence of str
        Warnings issued so far, read when the run is written.

    Returns
    -------
    Written
        The run folder.
    Scored or None
        The events and the scores of the maps, or None if no events are given.

    Raises
    ------
    AttnVizError
        If the request, the checkpoint or the output folder is invalid. Nothing is written in this case.
    """
    check_prompt(request.prompt)
    check_axes(request.keep)
    model.settle()
    place.check()
    waveform = load_audio(request.clip)
    seconds = len(waveform) / MEL.sampling_rate
    events = None if request.events is None else _checked_events(request.events, request, seconds)
    rate = MEL.sampling_rate
    if (published := model.published()) is None:
        pipe: Any = model.load()
        check_mappable(pipe, request.prompt)
        _check_readout(pipe, request)
    else:
        if published.family.codebooks is not None:
            check_without_noise(request.settings, published.family.name)
        pipe = family_job.load(published, model)
        rate = _prepare(pipe, published.family, request)
        waveform = load_audio(request.clip, rate)
    maps = explain(pipe, waveform, request.prompt, sampling_rate=rate, **request.settings)
    scored = None if events is None else Scored(events, align(maps, events, readout=request.readout))
    written = place.write(
        waveform,
        None if maps.spectrogram is None else maps.spectrogram[0, 0].to_numpy(),
        maps,
        request.record | _settled(maps),
        model=model,
        warned=warned,
        sampling_rate=rate,
        events=events,
        alignment=None if scored is None else scored.alignment.table,
    )
    return written, scored


def _settled(maps: AttentionMaps) -> dict[str, Any]:
    """Return the settings of the latents as they were used, with the defaults of those that were not given."""
    return {name: maps.provenance[name] for name in _LATENTS if name in maps.provenance}


def _prepare(loaded: Any, family: Family, request: Explanation) -> int:
    """Reject a readout that is not available for a model of another family, and return the model's rate in Hz."""
    pipe = loaded.model if isinstance(loaded, ModelWithProcessor) else loaded
    if _of_prediction(request):
        return read_rate(pipe, family)
    if request.readout in (FITTED, SHARP) or (request.readout == "auffusion" and not family.queries.has_freq):
        raise MapsError(
            f"readout={request.readout!r} is not defined for {family.name}. Use 'mean' or the name of a layer."
        )
    if request.readout not in ("mean", "auffusion"):
        find_layer(request.readout, [layer.name for layer in find_sites(getattr(pipe, family.denoiser), family)])
    return read_rate(pipe, family)


def _of_prediction(request: Explanation) -> bool:
    """Return whether the maps have the layer of the prediction alone; reject another readout of them."""
    if not METHODS[request.method].by_cell:
        return False
    if request.readout not in ("mean", PREDICTION):
        raise MapsError(
            f"method={request.method!r} has one layer, {PREDICTION!r}, and readout={request.readout!r} is not of "
            "it. Use 'mean'."
        )
    return True


def _check_readout(pipe: AuffusionPipeline, request: Explanation) -> None:
    """Reject a readout that is not available for this model, before the model runs."""
    readout = request.readout
    if _of_prediction(request):
        return
    if readout == FITTED:
        if request.randomize != 0:
            raise MapsError(
                "readout='fitted' is fitted for the trained weights. With --randomize, use 'mean' or a layer."
            )
        if request.method != "attention":
            raise MapsError(
                f"readout='fitted' is fitted for attention. With --method {request.method}, use 'mean' or a layer."
            )
        acting = {"weights": {"unet": weights_digest(pipe.unet, Digests())}}
        settled(readout, provenance.completed(provenance.model(pipe), acting))
    elif readout not in ("mean", "auffusion", SHARP):
        find_layer(readout, [layer.name for layer in find_cross_attention(pipe.unet)])


def _checked_events(path: Path, request: Explanation, seconds: float) -> pd.DataFrame:
    """Read the events of the clip that belong to the caption, and reject events that cannot be scored."""
    events = events_of(read_events(path, clip=request.clip, seconds=seconds), request.prompt)
    phrase_events(events, request.prompt, seconds)  # raises before the model runs
    return events
