"""Measure and show how near a resynthesis of stored scenes is to them: that of a vocoder, or of a codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import torch

from attnviz.audio import mel_to_image, write_wav
from attnviz.audio.mel import log_mels
from attnviz.training.excerpts import audible_floor, scaled, scene_log_mel
from attnviz.training.scene_store import SceneStore

_MEASURED, _SHOWN = 20, 3  # scenes

Made = Callable[[int], torch.Tensor]
"""From the number of a scene to its resynthesis, ``(samples,)`` at 16 kHz on the CPU."""


def audible_distance(scenes: SceneStore, made: Made, audible_db: float) -> float:
    """Return the mean absolute log-mel difference of whole scenes, in nats, over audible cells."""
    errors = []
    for number in range(min(_MEASURED, len(scenes))):
        mel = scene_log_mel(scenes, number)
        again = log_mels(made(number)[None])[0]
        errors.append(float((again - mel).abs()[mel >= audible_floor(mel, audible_db)].mean()))
    return float(np.mean(errors))


def write_resyntheses(scenes: SceneStore, made: Made, folder: Path, name: str) -> None:
    """Write ``N-original.wav`` and ``N-NAME.wav`` of three scenes, and the spectrograms of both."""
    rows = []
    for number in range(min(_SHOWN, len(scenes))):
        wave = made(number)
        write_wav(folder / f"{number}-original.wav", scaled(scenes.audio[number]).numpy())
        write_wav(folder / f"{number}-{name}.wav", wave.numpy())
        rows += [
            np.asarray(scenes.images[number], dtype=np.float32),
            mel_to_image(log_mels(wave[None])[0].numpy()),
        ]
    matplotlib.image.imsave(folder / "spectrograms.png", np.concatenate(rows), cmap="magma", vmin=0, vmax=1)
