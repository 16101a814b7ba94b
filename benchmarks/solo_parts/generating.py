"""Solos of generated clips, and what the listener hears in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from bundled_parts.material import Prompt, prompts

import attnviz
from attnviz.separation import separate
from attnviz.sounds.listener_folder import trained_listener
from solo_parts.settings import Settings


def generation_rows(pipe: Any, listener: Path | None, settings: Settings) -> pd.DataFrame:
    """Generate two-sound prompts, and listen to the clip and to both solos: a row per phrase.

    ``before`` says if the listener heard the phrase in the whole clip, ``other_before`` the other one; ``own`` and
    ``other`` say the same of the solo.
    """
    trained = trained_listener(listener if listener is not None and listener.is_dir() else None)
    two = [one for one in prompts(settings.esc10, settings.fold, settings.prompts * 2, settings.seed)
           if len(one.classes) == 2][: settings.prompts]  # fmt: skip
    rows = []
    for number, prompt in enumerate(two):
        seed = int(np.random.SeedSequence((settings.seed, settings.fold, number)).generate_state(1)[0])
        with attnviz.trace(pipe) as trace:
            out = pipe(
                prompt.text, num_inference_steps=settings.steps, guidance_scale=settings.guidance,
                guidance_interval=settings.guidance_interval, duration=10.24,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
        whole = _heard(out.audios[0], prompt, trained)
        found = separate(trace.maps, out.audios[0], phrases=list(prompt.spans))
        for at, sound in enumerate(found.audios):
            alone = _heard(sound, prompt, trained)
            rows.append(
                {"prompt": prompt.text, "sound": prompt.classes[at], "before": whole[at],
                 "other_before": whole[1 - at], "own": alone[at], "other": alone[1 - at]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _heard(audio: np.ndarray, prompt: Prompt, trained: Any) -> list[bool]:
    events = attnviz.listen(audio, model=trained.listener, decoding=trained.decoding).events
    return [bool((events["label"] == name).any()) for name in prompt.classes]
