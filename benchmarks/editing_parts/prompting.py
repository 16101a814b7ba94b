"""Prompt-to-prompt edits, compared with regeneration from the same noise and SDEdit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness import Model

from attnviz.editing import PromptEdit
from attnviz.editing.generating import apply_edit
from attnviz.editing.measures import (
    agreement,
    heard_loudness,
    loudness,
    mel_distance,
    outside_events,
    outside_map,
)
from attnviz.listener.hearing import Hearing
from attnviz.maps import AttentionMaps
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionPipeline
from editing_parts.settings import Settings
from editing_parts.tasks import Task, Weighing
from editing_parts.together import generate_together

EDIT, REGENERATE, SDEDIT = "prompt-to-prompt", "regenerate", "SDEdit"
_SECONDS = 10.24
_SILENCE = float(np.log(1e-5))

Sound = tuple[np.ndarray, np.ndarray]
"""Waveform (samples,) and natural-log mel spectrogram (bands, frames)."""


def edit_rows(model: Model, task: Task, settings: Settings, *, part: str, number: int) -> list[dict[str, Any]]:
    """Make one edit with three methods, and compare each with the source."""
    pipe = model.pipe
    seed = settings.seed_of(part, number)
    generator = torch.Generator().manual_seed(seed)
    both = apply_edit(pipe, task.edit, generator=generator, output_type="latent", **_call(pipe, settings, part))
    maps = both.maps
    source, edited = _decoded(pipe, both.output.latents)
    regenerated = _regenerated(pipe, task.edit.target, seed, _call(pipe, settings, part))
    sdedit = _sdedit(pipe, source[0], task.edit.target, settings, seed)
    made = {EDIT: edited, REGENERATE: regenerated, SDEDIT: sdedit}
    heard = {name: model.listen(sound[0]) for name, sound in made.items()}
    before = model.listen(source[0])
    sounds = [name for name in (task.old, task.new) if name]
    # Exclude frames edited by any method, so that all are compared on the same frames.
    events = [each.events for each in (before, *heard.values())]
    outside = outside_events(events, sounds, maps.grid, source[1].shape[1])
    unmapped = np.broadcast_to(outside, source[1].shape).copy()
    for span, prompt in ((task.old_span, 0), (task.new_span, 1)):
        if span is not None:
            unmapped &= outside_map(maps.heatmap(span, prompt_index=prompt, grid="image"))
    return [
        {
            "case": number,
            "method": name,
            "source": task.edit.source,
            "target": task.edit.target,
            **_of_word("old", task.old, before, heard[name]),
            **_of_word("new", task.new, before, heard[name]),
            "mel distance": mel_distance(source[1], spectrogram, outside),
            "mel distance outside map": mel_distance(source[1], spectrogram, unmapped),
            "agreement": agreement(before.probabilities, heard[name].probabilities, task.kept),
            "frames": int(outside.sum()),
        }
        for name, (_, spectrogram) in made.items()
    ]


def weight_rows(model: Model, task: Weighing, settings: Settings, number: int) -> list[dict[str, Any]]:
    """Re-weight a phrase with every weight, from the same noise."""
    pipe = model.pipe
    span, sound, text = task.prompt.spans[task.place], task.prompt.classes[task.place], task.prompt.text
    changing = [
        weight for weight in settings.weights if weight != 1
    ]  # with weight 1, the result is bit-identical to the source
    edits = [PromptEdit.reweighting(text, {span: weight}).settled(pipe.recommended) for weight in changing]
    (source, *weighed), maps = _together(pipe, edits, settings, settings.seed_of("reweight", number))
    made = dict(zip(changing, weighed, strict=True)) | {1.0: source}
    # Cells of the word in the source, which is the same for all weights.
    cells = (~outside_map(maps.heatmap(span, prompt_index=0, grid="image"))).astype(float)
    rows = []
    for weight in settings.weights:
        audio, spectrogram = made[weight]
        hearing = model.listen(audio)
        probability = hearing.probabilities.sel(sound=sound).to_numpy()
        rows.append(
            {
                "case": number,
                "prompt": text,
                "sound": sound,
                "weight": weight,
                "level": loudness(spectrogram, cells),
                "loudness": heard_loudness(spectrogram, probability),
                "probability": float(probability.mean()),
                "peak": float(hearing.peaks.sel(sound=sound)),
            }
        )
    return rows


def _together(
    pipe: AuffusionPipeline, edits: list[PromptEdit], settings: Settings, seed: int
) -> tuple[list[Sound], AttentionMaps]:
    """Generate a source and its edits; return all sounds, with the source first, and the maps."""
    latents, maps = generate_together(pipe, edits, seed, **_call(pipe, settings, "reweight"))
    return _decoded(pipe, latents), maps


def _decoded(pipe: AuffusionPipeline, latents: torch.Tensor) -> list[Sound]:
    """Decode latents to audio one after another."""
    # One by one, because a batch of images exceeds the processor's cache and takes longer.
    decoded = [pipe.decode_audio(each[None], _SECONDS).to_tuple() for each in latents]
    return [(audios[0], spectrograms[0]) for audios, spectrograms, _ in decoded]


def _regenerated(pipe: AuffusionPipeline, target: str, seed: int, call: dict[str, Any]) -> Sound:
    """Generate the target from the noise of the source, without using the source otherwise."""
    generator = torch.Generator().manual_seed(seed)
    made = pipe(target, generator=generator, output_type="latent", **call)
    return _decoded(pipe, made.latents)[0]


def _sdedit(pipe: AuffusionPipeline, audio: np.ndarray, target: str, settings: Settings, seed: int) -> Sound:
    """Noise the audio of the source and denoise it with the target prompt, at the level of the source."""
    style = AuffusionAudioToAudioPipeline.from_pipe(pipe)
    style.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    made = style(
        target, audio, strength=settings.sdedit_strength, generator=generator, **_call(pipe, settings, "style")
    )
    peak = float(np.abs(audio).max())
    gain = peak / 0.95 if peak else 1.0  # the pipeline scales a clip to a peak of 0.95
    return made.audios[0] * gain, np.maximum(made.spectrograms[0] + np.log(gain), _SILENCE)


def _call(pipe: AuffusionPipeline, settings: Settings, kind: str) -> dict[str, Any]:
    """Return the recommended settings of a kind of edit, which are also used for regeneration."""
    names = ("num_inference_steps", "guidance_scale", "guidance_interval")
    sampling = {**dict.fromkeys(names), "num_inference_steps": settings.steps}
    return {**pipe.recommended.settle(sampling, kind), "duration": _SECONDS}


def _of_word(which: str, sound: str | None, before: Hearing, after: Hearing) -> dict[str, Any]:
    if sound is None:
        return {}
    return {
        which: sound,
        f"{which} before": before.onset(sound) is not None,
        f"{which} heard": after.onset(sound) is not None,
        f"{which} peak": float(after.peaks.sel(sound=sound)),
    }
