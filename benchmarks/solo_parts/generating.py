"""Solos of generated clips, and what the listener hears in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness import Model, seed_of
from harness.material import Prompt

import attnviz
from attnviz.separation import separate


def generation_rows(model: Model, settings: Any, prompt: Prompt, number: int) -> list[dict[str, Any]]:
    """Generate a two-sound prompt, and listen to the clip and to both solos: a row per phrase.

    ``before`` says if the listener hears the phrase in the whole clip, ``other_before`` the other one; ``own`` and
    ``other`` say the same of the solo.
    """
    with attnviz.trace(model.pipe) as trace:
        out = model.pipe(
            prompt.text, num_inference_steps=settings.steps, guidance_scale=settings.guidance,
            guidance_interval=settings.guidance_interval, duration=10.24,
            generator=torch.Generator().manual_seed(seed_of(settings.seed, settings.fold, number)),
        )  # fmt: skip
    whole = _heard(model, out.audios[0], prompt)
    rows = []
    for at, sound in enumerate(separate(trace.maps, out.audios[0], phrases=list(prompt.spans)).audios):
        alone = _heard(model, sound, prompt)
        rows.append(
            {"prompt": prompt.text, "sound": prompt.classes[at], "before": whole[at],
             "other_before": whole[1 - at], "own": alone[at], "other": alone[1 - at]}
        )  # fmt: skip
    return rows


def _heard(model: Model, audio: np.ndarray, prompt: Prompt) -> list[bool]:
    events = model.listen(audio).events
    return [bool((events["label"] == name).any()) for name in prompt.classes]
