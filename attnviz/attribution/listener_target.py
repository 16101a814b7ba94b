"""The listener's logit of the clean clip that a denoiser predicts, with its gradient."""

from __future__ import annotations

import numpy as np
import torch

from attnviz.attribution.heard import named_sounds
from attnviz.attribution.method import Asked, Event, checked_event
from attnviz.attribution.players import players_of
from attnviz.audio.grid import SpectrogramGrid
from attnviz.diffusion.noising import View
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.diffusion.windows import WIDTH
from attnviz.listener.folder import trained_listener


def listener_logit(
    asked: Asked, view: View, prediction: torch.Tensor, event: Event | None, window: int
) -> torch.Tensor:
    """Return the bundled listener's logit of the sounds that the caption names.

    Parameters
    ----------
    asked : Asked
    view : (torch.Tensor, int)
        Input of the denoiser, and its timestep.
    prediction : torch.Tensor, shape (draws, channels, rows, columns)
    event : sequence of float, optional
        Onset and offset in seconds: the frames of the event only.
    window : int
        Number of the window.

    Returns
    -------
    torch.Tensor, scalar
        Sum over sounds of the mean over frames and draws.

    Raises
    ------
    CaptureError
        If the caption names no sound of the listener, or the event is not inside the clip.

    Notes
    -----
    The clean latents that belong to the prediction are decoded to a spectrogram, which the listener sees without
    the vocoder between.
    """
    sounds, _ = named_sounds(asked.tokens.prompt, players_of(asked.tokens))
    samples, timestep = view
    vae = asked.pipe.vae
    clean = TrainingSchedule.of(asked.pipe.scheduler).clean(prediction, samples, timestep)
    decoded = vae.decode(clean.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
    images = (decoded[:, 0].float() / 2 + 0.5).clamp(0, 1)
    listener = trained_listener(None).listener.to(images.device).eval()
    with torch.backends.cudnn.flags(enabled=False):  # whose recurrent layers have no gradient in evaluation
        logits = listener(images)[:, [listener.config.classes.index(name) for name in sounds]]
    inside = torch.from_numpy(_frames(asked, event, logits.shape[-1], window)).to(logits.device)
    return logits[..., inside].mean(dim=(0, 2)).sum() if bool(inside.any()) else logits.sum() * 0


def _frames(asked: Asked, event: Event | None, frames: int, window: int) -> np.ndarray:
    """Return which of the listener's frames lie in an event."""
    if event is None:
        return np.ones(frames, dtype=bool)
    grid = asked.grid
    onset, offset, *_ = checked_event(event, grid.seconds if grid.audio_seconds is None else grid.audio_seconds)
    seconds = (
        SpectrogramGrid(width=WIDTH).time(frames) + asked.starts[window] * grid.hop_length / grid.sampling_rate
    )
    return (seconds >= onset) & (seconds < offset)
