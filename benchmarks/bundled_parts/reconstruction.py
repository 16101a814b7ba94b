"""Evaluate listener, auto-encoder and vocoder on real scenes."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness.material import Clip

from attnviz.alignment import psds
from attnviz.audio import griffin_lim, image_to_mel, log_mel, mel_to_image
from attnviz.listener.model import Listener
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.scenes import CLASSES
from attnviz.training.vae import psnr, reconstruct
from bundled_parts.hearing import average_precisions, hear

AUDIBLE_DB = 60.0
"""Range of audible cells below the loudest cell of the clip in dB."""

_NEPER = 20 / np.log(10)  # dB in a nat


def listener_rows(clips: list[Clip], listener: Listener) -> list[dict[str, Any]]:
    """Measure the listener: frame-wise average precision by class, the mean, and PSDS1."""
    heard = hear(listener, [clip.image for clip in clips])
    precisions = average_precisions(heard, clips)
    rows = [{"name": f"ap {name}", "value": value} for name, value in precisions.items()]
    rows.append({"name": "frame mAP", "value": float(np.nanmean(list(precisions.values())))})
    seconds = clips[0].scene.config.seconds
    events = pd.concat([clip.scene.events for clip in clips], ignore_index=True)
    result = psds(
        scores={clip.scene.name: probabilities.T for clip, probabilities in zip(clips, heard, strict=True)},
        ground_truth=events.assign(label=events["class"]),
        durations={clip.scene.name: seconds for clip in clips},
        edges=np.linspace(0, seconds, heard.shape[2] + 1),
        classes=CLASSES,
    )
    rows.append({"name": "PSDS1", "value": result.value})
    return rows


def vae_rows(clips: list[Clip], listener: Listener, pipe: AuffusionPipeline) -> list[dict[str, Any]]:
    """Measure the auto-encoder: peak signal-to-noise ratio, and scores of the listener on its images."""
    back = [reconstruct(pipe.vae, clip.image[None])[0] for clip in clips]
    rows: list[dict[str, Any]] = [
        {
            "name": "PSNR",
            "value": float(np.mean([psnr(clip.image, b) for clip, b in zip(clips, back, strict=True)])),
        }
    ]
    for i, name in enumerate(CLASSES):
        # All bands of the columns in which this sound is audible, including simultaneous sounds.
        ratios = [
            psnr(clip.image[:, active], b[:, active])
            for clip, b in zip(clips, back, strict=True)
            if (active := clip.activity(1024)[i]).any()
        ]
        rows.append({"name": f"PSNR {name}", "value": float(np.mean(ratios)) if ratios else float("nan")})
    rows += _heard_again(clips, listener, back)
    return rows


def vocoder_rows(
    clips: list[Clip], listener: Listener, pipe: AuffusionPipeline, griffin_lim_clips: int
) -> list[dict[str, Any]]:
    """Measure the vocoder: spectrogram distance, time compared with Griffin-Lim, and listener scores."""
    mels = [image_to_mel(clip.image) for clip in clips]
    again, distances = [], []
    for mel in mels:
        made = log_mel(_vocode(pipe, mel))
        distances.append(mel_distance(mel, made))
        again.append(mel_to_image(made))
    rows: list[dict[str, Any]] = [{"name": "log-mel distance", "value": float(np.mean(distances))}]
    ratios, theirs = [], []
    for mel in mels[:griffin_lim_clips]:  # alternated, so that both have the same conditions
        start = perf_counter()
        _vocode(pipe, mel)
        middle = perf_counter()
        wave = griffin_lim(mel)
        ratios.append((perf_counter() - middle) / (middle - start))
        theirs.append(mel_distance(mel, log_mel(wave)))
    rows.append({"name": "times faster than Griffin-Lim", "value": float(np.median(ratios))})
    rows.append({"name": "log-mel distance of Griffin-Lim", "value": float(np.mean(theirs))})
    rows += _heard_again(clips, listener, again)
    return rows


def mel_distance(wanted: np.ndarray, given: np.ndarray) -> float:
    """Return the mean absolute difference of log-mel spectrograms in nats, over audible cells."""
    audible = wanted > wanted.max() - AUDIBLE_DB / _NEPER
    return float(np.abs(wanted - given)[audible].mean())


def _vocode(pipe: AuffusionPipeline, mel: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return pipe.vocoder(torch.from_numpy(mel)[None]).numpy()[0]


def _heard_again(clips: list[Clip], listener: Listener, images: list[np.ndarray]) -> list[dict[str, Any]]:
    before = average_precisions(hear(listener, [clip.image for clip in clips]), clips)
    after = average_precisions(hear(listener, images), clips)
    rows = [{"name": f"listener AP {name}", "value": value} for name, value in after.items()]
    means = [float(np.nanmean(list(values.values()))) for values in (before, after)]
    rows.append({"name": "listener mAP, original", "value": means[0]})
    rows.append({"name": "listener mAP", "value": means[1]})
    rows.append({"name": "listener mAP lost", "value": means[0] - means[1]})
    return rows
