"""Run a denoiser on the windows of a clip and capture its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers.utils import logging

from attnviz.attribution.denoising import Denoising
from attnviz.capture import AttentionRecorder, CapturedLayer, held
from attnviz.diffusion.continuous import Schedule
from attnviz.diffusion.noising import Latents, Predict, View
from attnviz.errors import CaptureError, MemoryBudgetError


def look_at_windows(
    denoising: Denoising,
    windows: Sequence[torch.Tensor],
    looks: Latents,
    schedule: Schedule,
    ask: Callable[[Sequence[View], Predict, int], Mapping[str, CapturedLayer]],
    progress_bar: Mapping[str, Any],
) -> Iterator[Mapping[str, CapturedLayer]]:
    """Yield the captured attention of each window in turn, so that memory is needed for one window only.

    Parameters
    ----------
    denoising : Denoising
        Denoiser with the caption.
    windows : sequence of torch.Tensor, each of shape (1, ...)
        Latents of the windows.
    looks : Noising, Predicted or Inversion
        How the inputs of the denoiser are computed.
    schedule : Schedule
        Noise schedule of the model.
    ask : callable
        Maps the inputs of a window, a function that predicts, and the number of the window to its layers.
    progress_bar : mapping
        Settings of the progress bar.

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
    with logging.tqdm(total=len(windows) * calls, **progress_bar) as progress:

        def predict(samples: torch.Tensor, timestep: int) -> torch.Tensor:
            prediction = denoising(samples, timestep)
            progress.update()
            return prediction

        for number, latents in enumerate(windows):
            views = looks.views(latents, schedule, predict)
            _check_finite(views)
            try:
                yield ask(views, predict, number)
            except MemoryBudgetError as error:
                if len(windows) == 1:
                    raise
                raise MemoryBudgetError(
                    f"The clip needs {len(windows)} windows, which share the budget. {error}"
                ) from error


def look(
    denoising: Denoising,
    views: Sequence[View],
    recorder: AttentionRecorder,
    predict: Predict | None = None,
) -> Mapping[str, CapturedLayer]:
    """Call a denoiser with some inputs, and return what is recorded of its attention.

    Parameters
    ----------
    denoising : Denoising
    views : sequence of (torch.Tensor, int)
        Inputs of the denoiser, and their timesteps.
    recorder : AttentionRecorder
        Recorder of the denoiser.
    predict : callable, optional
        Called with each input and timestep instead of `denoising`.

    Returns
    -------
    mapping of str to CapturedLayer
        Captured layers, valid until the next call with the same recorder.
    """
    recorder.recordings.clear()
    with held(recorder):
        recording = recorder.begin(denoising.conditioning, lambda: len(views))
        for samples, timestep in views:
            (predict or denoising)(samples, timestep)
    return recorder.captured(recording)


def _check_finite(views: Sequence[View]) -> None:
    for samples, timestep in views:
        if not bool(torch.isfinite(samples).all()):
            raise CaptureError(
                f"The latents for timestep {timestep} are NaN or infinite. Either the predictions of the denoiser "
                "are, or the schedule has no signal left at a timestep. In float16, this is an overflow (try "
                "bfloat16 or float32). Otherwise, omit the last timesteps."
            )
