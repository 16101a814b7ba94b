"""A stand-in for a model, to size a run or test a cluster: noisy curves of planted events, at a known cost."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents
from attnviz.corpus.clips import PlannedClip
from attnviz.corpus.plan import Plan
from attnviz.corpus.results import ClipResult
from attnviz.errors import AudioError, CorpusError
from attnviz.io.settings import refuse_unknown
from attnviz.text.words import split_words

SETTINGS = {"seconds": 0.0, "columns": 128, "fail_every": 0, "sources": 997, "load_seconds": 0.0}
"""Settings of the plan, with their defaults: cost of a clip in seconds (asleep), columns, every how manieth clip
fails (0: none), number of source recordings, and seconds that loading takes."""

_CLIP_SECONDS = 10.24


def make(plan: Plan) -> Callable[[PlannedClip], ClipResult]:
    """Return the task of a plan with ``task = "attnviz.corpus.stand_in:make"``."""
    refuse_unknown(plan.settings, SETTINGS, "settings.", error=CorpusError)
    settings = {**SETTINGS, **plan.settings}
    time.sleep(settings["load_seconds"])

    def task(clip: PlannedClip) -> ClipResult:
        time.sleep(settings["seconds"])
        every = int(settings["fail_every"])
        if every and clip.index % every == every - 1:
            raise AudioError(f"the audio of {clip.clip} is damaged, as the plan asks for")
        rng = np.random.default_rng([clip.seed, clip.index])
        energy = rng.normal(size=int(settings["columns"]))
        words = range(len(split_words(clip.caption)))
        phrases = tuple(_phrase(clip, place, rng, energy, settings) for place in words)
        return ClipResult(phrases, True, {"level_dbfs": float(-20 - 10 * rng.random())})

    return task


def _phrase(
    clip: PlannedClip, place: int, rng: np.random.Generator, energy: np.ndarray, settings: dict[str, float]
) -> AlignedPhrase:
    word = split_words(clip.caption)[place]
    columns = len(energy)
    width = _CLIP_SECONDS / columns
    onset = float(np.round(rng.uniform(0, 0.6) * _CLIP_SECONDS, 3))
    times = np.array([[onset, onset + float(np.round(rng.uniform(0.1, 0.35) * _CLIP_SECONDS, 3))]])
    edges = np.arange(columns + 1) * width
    inside = np.minimum(edges[1:], times[0, 1]) - np.maximum(edges[:-1], times[0, 0])
    share = np.clip(inside / width, 0.0, 1.0)
    noise = np.convolve(rng.normal(size=columns + 8), np.ones(9) / 9, mode="valid")
    events = PhraseEvents(
        clip.clip,
        word.text,
        (word.start, word.end),
        f"source {rng.integers(int(settings['sources']))}",
        times,
        None,
        0,
        0,
    )
    curve = (0.5 * share + noise).astype(np.float32)
    return AlignedPhrase(events, 0, _CLIP_SECONDS, width, share, {"map": (curve,)}, energy.astype(np.float32))
