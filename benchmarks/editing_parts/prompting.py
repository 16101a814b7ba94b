"""Prompt-to-prompt edits beside regeneration from the same noise and SDEdit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import attnviz
from attnviz.editing import EditedAudio, PromptEdit, apply_edit
from attnviz.editing.measures import agreement, loudness, mel_distance, outside_events, outside_map
from attnviz.pipelines import AuffusionAudioToAudioPipeline, AuffusionPipeline
from attnviz.sounds.hearing import Hearing
from attnviz.sounds.listener_folder import TrainedListener
from editing_parts.settings import Settings
from editing_parts.tasks import Task, weighings

EDIT, REGENERATE, SDEDIT = "prompt-to-prompt", "regenerate", "SDEdit"
_SECONDS = 10.24
_SILENCE = float(np.log(1e-5))


def edit_rows(
    pipe: AuffusionPipeline, trained: TrainedListener, task: Task, settings: Settings, part: str, number: int
) -> Iterator[dict[str, Any]]:
    """Make one edit in three ways, and measure each against the source."""
    seed = settings.seed_of(part, number)
    made = _edited(pipe, task.edit, settings, seed)
    spectrograms = {EDIT: made.output.spectrograms[1]}
    audios = {"source": made.source_audio, EDIT: made.audio}
    source = made.output.spectrograms[0]
    again = pipe(
        [task.edit.source, task.edit.target],
        generator=[torch.Generator().manual_seed(seed) for _ in range(2)],
        **_call(settings),
    )
    audios[REGENERATE], spectrograms[REGENERATE] = again.audios[1], again.spectrograms[1]
    audios[SDEDIT], spectrograms[SDEDIT] = _sdedit(pipe, made.source_audio, task.edit.target, settings, seed)
    heard = {name: _listen(audio, trained) for name, audio in audios.items()}
    sounds = [name for name in (task.old, task.new) if name]
    # What is edited in one of them is left out of all, so that they are compared on the same frames.
    outside = outside_events([each.events for each in heard.values()], sounds, made.maps.grid, source.shape[1])
    unmapped = np.broadcast_to(outside, source.shape).copy()
    for span, prompt in ((task.old_span, 0), (task.new_span, 1)):
        if span is not None:
            unmapped &= outside_map(made.maps.heatmap(span, prompt=prompt, grid="image"))
    for name, spectrogram in spectrograms.items():
        yield {
            "case": number,
            "method": name,
            "source": task.edit.source,
            "target": task.edit.target,
            **_of_word("old", task.old, heard["source"], heard[name]),
            **_of_word("new", task.new, heard["source"], heard[name]),
            "mel distance": mel_distance(source, spectrogram, outside),
            "mel distance outside map": mel_distance(source, spectrogram, unmapped),
            "agreement": agreement(heard["source"].probabilities, heard[name].probabilities, task.kept),
            "frames": int(outside.sum()),
        }


def weight_rows(
    pipe: AuffusionPipeline, trained: TrainedListener, settings: Settings
) -> Iterator[list[dict[str, Any]]]:
    """Weigh a phrase with every weight, from the same noise."""
    for number, (prompt, place) in enumerate(weighings(settings)):
        span, sound = prompt.spans[place], prompt.classes[place]
        cells: np.ndarray | None = None
        rows = []
        for weight in settings.weights:
            edit = PromptEdit.reweighting(prompt.text, {span: weight})
            made = _edited(pipe, edit, settings, settings.seed_of("reweight", number))
            if cells is None:  # where the source, which is the same at every weight, has the word
                cells = (~outside_map(made.maps.heatmap(span, prompt=0, grid="image"))).astype(float)
            hearing = _listen(made.audio, trained)
            rows.append(
                {
                    "case": number,
                    "prompt": prompt.text,
                    "sound": sound,
                    "weight": weight,
                    "loudness": loudness(made.output.spectrograms[1], cells),
                    "probability": float(hearing.probabilities.sel(sound=sound).mean()),
                    "peak": float(hearing.peaks.sel(sound=sound)),
                }
            )
        yield rows


def _edited(pipe: AuffusionPipeline, edit: PromptEdit, settings: Settings, seed: int) -> EditedAudio:
    edit = replace(
        edit,
        cross_replace_steps=settings.cross_replace_steps,
        self_replace_steps=settings.self_replace_steps,
    )
    return apply_edit(pipe, edit, generator=torch.Generator().manual_seed(seed), **_call(settings))


def _sdedit(
    pipe: AuffusionPipeline, audio: np.ndarray, target: str, settings: Settings, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Noise the source's audio and denoise it towards the target; at the level of the source."""
    style = AuffusionAudioToAudioPipeline.from_pipe(pipe)
    style.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    made = style(target, audio, strength=settings.sdedit_strength, generator=generator, **_call(settings))
    peak = float(np.abs(audio).max())
    gain = peak / 0.95 if peak else 1.0  # the pipeline scales a clip to a peak of 0.95
    return made.audios[0] * gain, np.maximum(made.spectrograms[0] + np.log(gain), _SILENCE)


def _call(settings: Settings) -> dict[str, Any]:
    return {
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "duration": _SECONDS,
    }


def _listen(audio: np.ndarray, trained: TrainedListener) -> Hearing:
    return attnviz.listen(audio, model=trained.listener, decoding=trained.decoding)


def _of_word(which: str, sound: str | None, before: Hearing, after: Hearing) -> dict[str, Any]:
    if sound is None:
        return {}
    return {
        which: sound,
        f"{which} before": before.onset(sound) is not None,
        f"{which} heard": after.onset(sound) is not None,
        f"{which} peak": float(after.peaks.sel(sound=sound)),
    }
