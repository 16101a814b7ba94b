"""Generate audio from prompts, run the listener on it, and score the maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from second_judge import SecondJudge

import attnviz
from attnviz.pipelines import AuffusionPipeline
from attnviz.sounds import CLASSES
from attnviz.sounds.listener_folder import TrainedListener
from bundled_parts.alignment import auc_rows
from bundled_parts.material import Prompt
from bundled_parts.settings import Settings


def generated(
    pipe: AuffusionPipeline,
    trained: TrainedListener,
    judge: SecondJudge,
    prompts: list[Prompt],
    settings: Settings,
    fold: int,
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Generate every prompt with every seed; yield detected sounds and the scores of the maps against them."""
    for number, prompt in enumerate(prompts):
        for seed in range(settings.seeds):
            generator = torch.Generator().manual_seed(settings.seed_of(fold, number, seed))
            with attnviz.trace(pipe) as trace:
                out = pipe(
                    prompt.text,
                    num_inference_steps=settings.steps,
                    guidance_scale=settings.guidance,
                    guidance_interval=settings.guidance_interval,
                    generator=generator,
                    duration=10.24,
                )
            hearing = attnviz.listen(out.audios[0], model=trained.listener, decoding=trained.decoding)
            named = {"prompt": prompt.text, "seed": seed}
            row = {**named, **_heard(hearing, prompt), "judged": None}
            if len(prompt.classes) == 1:
                row["judged"] = judge.name(out.audios[0])
            scores = []
            probabilities = hearing.probabilities.values
            for sound, span in zip(prompt.classes, prompt.spans, strict=True):
                active = probabilities[CLASSES.index(sound)]
                scores += [
                    {**named, "sound": sound, **score}
                    for score in auc_rows(trace.maps, span, _binary(hearing, sound, active))
                ]
            yield row, scores


def _binary(hearing: attnviz.Hearing, sound: str, active: np.ndarray) -> np.ndarray:
    """Return whether each frame is inside an event of the class."""
    inside = np.zeros(active.shape, dtype=bool)
    for onset, offset in hearing.events.loc[hearing.events["label"] == sound, ["onset", "offset"]].to_numpy():
        first, last = (round(time / hearing.frame_seconds) for time in (onset, offset))
        inside[int(first) : int(last)] = True
    return inside


def _heard(hearing: attnviz.Hearing, prompt: Prompt) -> dict[str, Any]:
    wanted = list(prompt.classes)
    top = hearing.strongest(len(wanted))
    onsets = [hearing.onset(sound) for sound in wanted]
    both = len(wanted) == 2 and None not in onsets
    return {
        "classes": " + ".join(wanted),
        "ordered": prompt.ordered,
        "heard": " + ".join(top),
        "right": set(top) == set(wanted),
        "in order": onsets[0] < onsets[1] if both and prompt.ordered else None,
    }
