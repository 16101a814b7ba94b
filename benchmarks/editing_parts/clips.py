"""Edits of real scenes: inpainting of a span, and style transfer towards another sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import Model
from harness.material import recordings

from attnviz.audio import log_mel, peak_normalize
from attnviz.editing.measures import mel_distance, seam_click
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline
from attnviz.scenes import ComposerConfig, scenes
from attnviz.text.sounds import PHRASES
from editing_parts.settings import PARTS, Settings
from editing_parts.tasks import other_class

_RATE = 16_000


@dataclass(frozen=True)
class Scene:
    """A scene to edit.

    Attributes
    ----------
    clip : numpy.ndarray, shape (samples,)
    classes : list of str
        Classes of its sounds.
    rng : numpy.random.Generator
        Random generator of this case.
    """

    clip: np.ndarray
    classes: list[str]
    rng: np.random.Generator


def scenes_of(part: str, settings: Settings) -> Iterator[Scene]:
    """Compose the scenes of a part: two or three sounds for inpainting, one for style transfer."""
    found = recordings(settings.esc10, settings.fold)
    events = {"inpaint": (2, 3), "style": (1, 1)}[part]
    seed = (settings.seed, settings.fold, PARTS.index(part))
    for number, scene in enumerate(scenes(found, settings.prompts, seed, ComposerConfig(events=events))):
        rng = np.random.default_rng(settings.seed_of(part, number))
        yield Scene(scene.mixture.astype(np.float32), [sound.sound for sound in scene.sounds], rng)


def inpaint_rows(model: Model, scene: Scene, settings: Settings, number: int) -> list[dict[str, Any]]:
    """Regenerate a span of a scene with a sound that is not in it."""
    inpaint = AuffusionInpaintPipeline.from_pipe(model.pipe)
    inpaint.set_progress_bar_config(disable=True)
    clip, rng = scene.clip, scene.rng
    new = other_class(scene.classes, rng)
    seconds = len(clip) / _RATE
    start = float(np.round(rng.uniform(0.5, seconds - settings.span_seconds - 0.5), 2))
    end = start + settings.span_seconds
    made = inpaint(_prompt(new, rng), clip, span=(start, end), **_call(settings, "inpaint", number)).audios[0]
    heard = model.listen(made)
    inside = heard.events.query("label == @new and onset < @end and offset > @start")
    first, last = (round(each * _RATE) for each in (start, end))
    kept = np.r_[0 : first - 160, last + 160 : len(clip)]
    hard = np.r_[clip[:first], np.roll(clip, _RATE)[first:last], clip[last:]]  # result of a hard cut
    return [
        {
            "case": number,
            "new": new,
            "start": start,
            "end": end,
            "new heard in the span": len(inside) > 0,
            "kept is the original": bool(np.array_equal(made[kept], clip[kept])),
            "seam, dB": max(seam_click(made, each) for each in (start, end)),
            "hard cut, dB": max(seam_click(hard, each) for each in (start, end)),
        }
    ]


def style_rows(model: Model, scene: Scene, settings: Settings, number: int) -> list[dict[str, Any]]:
    """Edit a scene of one sound towards another with every strength."""
    style = AuffusionAudioToAudioPipeline.from_pipe(model.pipe)
    style.set_progress_bar_config(disable=True)
    old, new = scene.classes[0], other_class(scene.classes, scene.rng)
    prompt = _prompt(new, scene.rng)
    source = log_mel(peak_normalize(scene.clip))
    rows = []
    for strength in settings.strengths:
        made = style(prompt, scene.clip, strength=strength, **_call(settings, "style", number))
        heard = model.listen(made.audios[0])
        frames = min(source.shape[1], made.spectrograms.shape[2])
        rows.append(
            {
                "case": number,
                "old": old,
                "new": new,
                "strength": strength,
                "new heard": heard.onset(new) is not None,
                "old heard": heard.onset(old) is not None,
                "new peak": float(heard.peaks.sel(sound=new)),
                "old peak": float(heard.peaks.sel(sound=old)),
                "mel distance": mel_distance(source[:, :frames], made.spectrograms[0][:, :frames]),
            }
        )
    return rows


def _prompt(sound: str, rng: np.random.Generator) -> str:
    clauses = PHRASES[sound].clauses
    return clauses[rng.integers(len(clauses))]


def _call(settings: Settings, part: str, number: int) -> dict[str, Any]:
    return {
        "num_inference_steps": settings.steps,
        "generator": torch.Generator().manual_seed(settings.seed_of(part, number)),
    }
