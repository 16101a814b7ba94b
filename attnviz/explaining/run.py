"""The command line's work on a real clip: read it and its events, explain, write a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import xarray as xr

from attnviz import provenance
from attnviz.alignment import Alignment, align
from attnviz.alignment.phrases import phrase_events
from attnviz.audio import MEL, load_audio, peak_normalize
from attnviz.audio.levels import loudest_level, warn_if_inaudible
from attnviz.capture import find_cross_attention
from attnviz.events import events_of, read_events
from attnviz.explaining.reading import explain
from attnviz.jobs import ModelChoice, RunPlace, Written, check_axes, check_mappable, check_prompt
from attnviz.maps.readouts import find_layer
from attnviz.maps.settling import settled
from attnviz.pipelines import AuffusionPipeline


@dataclass(frozen=True)
class Explanation:
    """What is explained, and how; `prompt` is the caption, None a setting left out: see `attnviz.explain`."""

    clip: Path
    prompt: str
    events: Path | None = None
    method: str = "noising"
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
        """What ``run.json`` says of it."""
        paths = {"clip": str(self.clip), "events": None if self.events is None else str(self.events)}
        return {**asdict(self), **paths}

    @property
    def settings(self) -> dict[str, Any]:
        """What `attnviz.explain` is called with, beside pipeline, clip and caption."""
        settings = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("clip", "prompt", "events", "readout")
        }
        return {name: value for name, value in settings.items() if value not in (None, ())}


def explain_to_run(
    request: Explanation,
    *,
    model: ModelChoice,
    place: RunPlace,
    warned: Sequence[str] = (),
) -> tuple[Written, Alignment | None]:
    """Explain a clip, score its maps where its events are given, and write a run folder.

    What can be refused without a model is refused before one is loaded: the caption, the clip, its events and the
    place of the folder.

    Parameters
    ----------
    request, model
        What is explained, and by which checkpoint.
    place : RunPlace
        Run folder to write. Its ``audio.wav`` is the clip as the model saw it: 16 kHz, one channel, scaled to a
        peak of 0.95 unless that was turned off.
    warned : sequence of str
        Warnings given so far, read when the run is written.

    Returns
    -------
    Written
        The run folder.
    Alignment or None
        The scores; None where no events are given.

    Raises
    ------
    AttnVizError
        On a bad request, checkpoint or output folder; nothing is written then.
    """
    check_prompt(request.prompt)
    check_axes(request.keep)
    model.settle()
    place.check()
    waveform = load_audio(request.clip)
    seconds = len(waveform) / MEL.sample_rate
    events = None if request.events is None else _checked_events(request.events, request, seconds)
    pipe = model.load()
    check_mappable(pipe, request.prompt)
    _check_readout(pipe, request.readout)
    warn_if_inaudible(loudest_level(waveform), "The clip")
    maps = explain(pipe, waveform, request.prompt, **request.settings)
    alignment = None if events is None else align(maps, events, readout=request.readout)
    spectrogram = cast("xr.DataArray", maps.spectrogram)  # explain's maps have it always
    written = place.write(
        peak_normalize(waveform) if request.normalize else waveform,
        spectrogram[0, 0].to_numpy(),
        maps,
        request.record,
        model=model,
        warned=warned,
        events=events,
        alignment=None if alignment is None else alignment.table,
    )
    return written, alignment


def _check_readout(pipe: AuffusionPipeline, readout: str) -> None:
    """Refuse a readout that the maps of this model will not have, before the model works."""
    if isinstance(settled(readout, provenance.model(pipe)), str) and readout not in ("mean", "auffusion"):
        find_layer(readout, [layer.name for layer in find_cross_attention(pipe.unet)])


def _checked_events(path: Path, request: Explanation, seconds: float) -> pd.DataFrame:
    """Read the events of the clip that belong to the caption, and refuse what could not be scored with it."""
    events = events_of(read_events(path, clip=request.clip, seconds=seconds), request.prompt)
    phrase_events(events, request.prompt, seconds)  # or an error, before the model works
    return events
