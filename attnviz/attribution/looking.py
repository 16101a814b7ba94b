"""Run the U-Net on the windows of a clip and capture its attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.utils import logging

from attnviz.capture import AttentionRecorder, CapturedLayer, Conditioning, held
from attnviz.diffusion.clip import Clip, encode
from attnviz.diffusion.noising import Latents, View
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.errors import CaptureError, MemoryBudgetError


def look_at_windows(
    pipe: Any,
    clip: Clip,
    looks: Latents,
    schedule: TrainingSchedule,
    recorder: AttentionRecorder,
    conditioning: Conditioning,
) -> Iterator[Mapping[str, CapturedLayer]]:
    """Yield the captured attention of each window in turn, so that memory is needed for one window only.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline with the U-Net.
    clip : Clip
        Prepared clip.
    looks : Noising, Predicted or Inversion
        How the inputs of the U-Net are computed.
    schedule : TrainingSchedule
        Noise schedule of the model.
    recorder : AttentionRecorder
        Recorder of the U-Net. It is active only for the calls that are explained, not for the calls that `looks`
        makes to compute their inputs.
    conditioning : Conditioning
        Text embeddings of the caption.

    Yields
    ------
    mapping of str to CapturedLayer
        Captured layers, valid until the next iteration.

    Raises
    ------
    CaptureError
        As for `attnviz.explain`.
    """
    calls = looks.predictions(schedule) + len(looks.timesteps)
    # Respect `pipe.set_progress_bar_config(disable=True)`, as the loop of the pipeline does.
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
            views = looks.views(encode(pipe, pixels), schedule, predict)
            _check_finite(views)
            with held(recorder):
                recording = recorder.begin(conditioning, lambda: len(looks.timesteps))
                try:
                    for samples, timestep in views:
                        predict(samples, timestep)
                except MemoryBudgetError as error:
                    if len(clip.starts) == 1:
                        raise
                    raise MemoryBudgetError(
                        f"The clip needs {len(clip.starts)} windows, which share the budget. {error}"
                    ) from error
            yield recorder.captured(recording)
            recorder.recordings.clear()


def _check_finite(views: list[View]) -> None:
    for samples, timestep in views:
        if not bool(torch.isfinite(samples).all()):
            raise CaptureError(
                f"The latents for timestep {timestep} are NaN or infinite. Either the predictions of the U-Net "
                "are, or the schedule has no signal left at a timestep. In float16, this is an overflow (try "
                "bfloat16 or float32). Otherwise, omit the last timesteps."
            )
