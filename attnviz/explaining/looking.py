"""The U-Net at work on a clip: window by window, its attention captured while it looks and not before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.utils import logging

from attnviz.capture import AttentionRecorder, CapturedLayer, Conditioning, held
from attnviz.errors import CaptureError, MemoryBudgetError
from attnviz.explaining.clip import Clip, encode
from attnviz.explaining.methods import Method, View
from attnviz.explaining.schedule import TrainingSchedule


def look_at_windows(
    pipe: Any,
    clip: Clip,
    method: Method,
    schedule: TrainingSchedule,
    recorder: AttentionRecorder,
    conditioning: Conditioning,
) -> Iterator[Mapping[str, CapturedLayer]]:
    """Yield what is captured of each window, one after another, so that two are never held at once.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline, with its U-Net as it is to be looked with.
    clip : Clip
        The clip.
    method : Method
        What is looked at.
    schedule : TrainingSchedule
        The model's noise schedule.
    recorder : AttentionRecorder
        Of the pipeline's U-Net; it is on while the U-Net looks, and off while it predicts what to look at.
    conditioning : Conditioning
        The caption's keys.

    Yields
    ------
    mapping of str to CapturedLayer
        To be used before the next is asked for.

    Raises
    ------
    CaptureError
        As `attnviz.explain`.
    """
    calls = method.predictions(schedule) + len(method.timesteps)
    # As the pipeline's own loop shows it: `pipe.set_progress_bar_config(disable=True)` turns off both.
    how = getattr(pipe, "_progress_bar_config", {})
    with logging.tqdm(total=len(clip.starts) * calls, **how) as progress:

        def predict(samples: torch.Tensor, timestep: int) -> torch.Tensor:
            keys = conditioning.prompt_embeds
            prediction = pipe.unet(
                samples.to(pipe.unet.dtype), timestep, encoder_hidden_states=keys, return_dict=False
            )
            progress.update()
            return prediction[0].float()

        for pixels in clip.windows:
            views = method.views(encode(pipe, pixels), schedule, predict)
            _check_finite(views)
            with held(recorder):
                recording = recorder.begin(conditioning, lambda: len(method.timesteps))
                try:
                    for samples, timestep in views:
                        predict(samples, timestep)
                except MemoryBudgetError as error:
                    if len(clip.starts) == 1:
                        raise
                    raise MemoryBudgetError(
                        f"The clip takes {len(clip.starts)} windows, and each has a share of the budget. {error}"
                    ) from error
            yield recorder.captured(recording)
            recorder.recordings.clear()


def _check_finite(views: list[View]) -> None:
    for samples, timestep in views:
        if not bool(torch.isfinite(samples).all()):
            raise CaptureError(
                f"The latents to be looked at with timestep {timestep} are NaN or infinite: the U-Net's "
                "predictions are, or the schedule leaves nothing of the signal at a timestep predicted from. "
                "In float16 this is an overflow (try bfloat16 or float32); otherwise leave the last timesteps out."
            )
