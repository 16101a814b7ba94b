"""Tasks: what is done with each clip. A task is made once per worker and called with one clip after the other.

A task of one's own is ``task = "module:function"`` in a plan. The function gets the plan and returns a callable
that takes a `PlannedClip` and returns a `ClipResult`. The digest of the plan contains the source of its module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np

from attnviz import bundled
from attnviz.alignment import align
from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents
from attnviz.alignment.reading import How, read_phrase
from attnviz.audio import MEL, load_audio
from attnviz.audio.levels import loudest_level
from attnviz.corpus.clips import PlannedClip, audio_digest
from attnviz.corpus.plan import Plan
from attnviz.corpus.results import ClipResult
from attnviz.errors import AttnVizError, AudioError, CorpusError
from attnviz.maps import AttentionMaps
from attnviz.maps.settling import settled

Task = Callable[[PlannedClip], ClipResult]


def make_task(plan: Plan) -> Task:
    """Load the model of a plan and return its task.

    Raises
    ------
    CorpusError
        If a task of one's own cannot be imported or made.
    CheckpointError
        If the checkpoint cannot be loaded.
    """
    if plan.task == "generate":
        return _Generate(plan)
    if plan.task == "explain":
        return _Explain(plan)
    module, _, name = plan.task.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CorpusError(f"task {plan.task!r} cannot be imported: {error}.") from error
    try:
        return cast(Task, make(plan))
    except AttnVizError:
        raise
    except Exception as error:
        raise CorpusError(f"task {plan.task!r} cannot be made: {type(error).__name__}: {error}") from error


class _Generate:
    """Generate audio for a caption, and score its maps against what the listener hears."""

    def __init__(self, plan: Plan) -> None:
        from attnviz.models.pipelines.sampling import Sampling

        self.plan = plan
        self.pipe = _load(plan)
        given = plan.generate
        interval = given.guidance_interval
        wanted = Sampling(
            given.num_inference_steps, 0, given.guidance_scale, given.negative_prompt,
            None if interval is None else (interval[0], interval[1]),
        )  # fmt: skip
        wanted.check()
        self.sampling = wanted.settled(self.pipe.recommended)

    def __call__(self, clip: PlannedClip) -> ClipResult:
        from attnviz.tracing.trace import Trace

        with Trace(self.pipe) as trace:
            audios, _, _ = self.pipe(
                clip.caption, duration=self.plan.generate.duration, return_dict=False,
                **replace(self.sampling, seed=clip.seed).call,
            )  # fmt: skip
        return _result(self.plan, clip, trace.maps, audios[0])


class _Explain:
    """Explain the audio of a clip with its caption, and score its maps against events."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pipe = _load(plan)
        given = asdict(plan.explain)
        self.settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def __call__(self, clip: PlannedClip) -> ClipResult:
        from attnviz.attribution import explain

        path = self.plan.path(str(self.plan.clips.audio)) / clip.clip
        found = audio_digest(path)
        if found != clip.sha256:
            raise AudioError(
                f"{path} has changed since the corpus was begun (SHA-256 {found[:12]}, not {clip.sha256[:12]}). "
                "Put the file back, or run the plan in a new folder."
            )
        audio = load_audio(path)
        settings = dict(self.settings)
        if self.plan.explain.latents != "inversion":
            settings["seed"] = clip.seed
        maps = explain(self.pipe, audio, clip.caption, **settings)
        return _result(self.plan, clip, maps, audio)


def _load(plan: Plan) -> Any:
    import torch
    from diffusers.utils import logging as diffusers_logging

    from attnviz.models.pipelines import AuffusionPipeline

    diffusers_logging.disable_progress_bar()
    chosen = plan.model
    named = chosen.checkpoint
    pipe = AuffusionPipeline.from_pretrained(
        bundled.FOLDER if named is None else plan.path(named) if plan.path(named).is_dir() else named,
        revision=chosen.revision,
        torch_dtype=getattr(torch, chosen.precision),
    )
    if chosen.checkpoint is None:  # record the model's name, not its path on this machine
        pipe.register_to_config(_name_or_path=bundled.NAME)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(chosen.device)


def _result(plan: Plan, clip: PlannedClip, maps: AttentionMaps, audio: np.ndarray) -> ClipResult:
    facts = {"level_dbfs": loudest_level(audio)}
    score = plan.score
    if score.events == "none":
        return ClipResult(words_of(maps, clip.clip, score.readout, score.pool), False, facts, maps, audio)
    result = align(maps, _events(plan, clip, audio), readout=score.readout, pool=score.pool)
    named = tuple(replace(one, events=replace(one.events, clip=clip.clip)) for one in result.phrases)
    return ClipResult(named, True, facts, maps, audio)


def _events(plan: Plan, clip: PlannedClip, audio: np.ndarray) -> Any:
    if plan.score.events == "file":
        return clip.event_table
    from attnviz.listener.listening import listen

    return listen(audio, sampling_rate=MEL.sampling_rate)


def words_of(maps: AttentionMaps, clip: str, readout: str, pool: str) -> tuple[AlignedPhrase, ...]:
    """Return the curves of all words of a caption, without events."""
    how = How(0, 0, settled(readout, maps.provenance), pool)
    nothing = np.empty((0, 2))
    return tuple(
        read_phrase(maps, PhraseEvents(clip, word.text, word.span, None, nothing, None, 0, 0), how, {}, None)
        for word in maps.occurrences(0)
    )


__all__ = ["ClipResult", "PlannedClip", "Task", "make_task", "words_of"]
