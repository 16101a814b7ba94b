"""Generate audio from prompts, run the listener on it, and score the maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness import Model
from harness.material import Prompt
from second_judge import SecondJudge

import attnviz
from attnviz.scenes import CLASSES
from bundled_parts.alignment import auc_rows
from bundled_parts.settings import Settings


def generated(
    model: Model, judge: SecondJudge, prompt: Prompt, seed: int, noise_seed: int, settings: Settings
) -> list[dict[str, Any]]:
    """Generate a prompt once; return a row of what is heard, then rows of the scores of the maps against it."""
    with attnviz.trace(model.pipe) as trace:
        out = model.pipe(
            prompt.text,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            guidance_interval=settings.guidance_interval,
            generator=torch.Generator().manual_seed(noise_seed),
            duration=10.24,
        )
    hearing = model.listen(out.audios[0])
    named = {"prompt": prompt.text, "seed": seed}
    judged = judge.name(out.audios[0]) if len(prompt.classes) == 1 else None
    rows = [{**named, **heard_row(hearing, prompt), "judged": judged}]
    for sound, span in zip(prompt.classes, prompt.spans, strict=True):
        active = hearing.probabilities.values[CLASSES.index(sound)]
        scores = auc_rows(trace.maps, span, _binary(hearing, sound, active))
        rows += [{**named, "sound": sound, **score} for score in scores]
    return rows


def heard_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of what is heard, of the rows of several generations."""
    return [row for row in rows if "heard" in row]


def map_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the maps."""
    return [row for row in rows if "auc" in row]


def _binary(hearing: attnviz.Hearing, sound: str, active: np.ndarray) -> np.ndarray:
    """Return whether each frame is inside an event of the class."""
    inside = np.zeros(active.shape, dtype=bool)
    for onset, offset in hearing.events.loc[hearing.events["label"] == sound, ["onset", "offset"]].to_numpy():
        first, last = (round(time / hearing.frame_seconds) for time in (onset, offset))
        inside[int(first) : int(last)] = True
    return inside


def heard_row(hearing: attnviz.Hearing, prompt: Prompt) -> dict[str, Any]:
    """Return which classes were heard of a prompt, and whether they are right and in order."""
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
