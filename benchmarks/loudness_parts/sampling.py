"""Generate several prompts together with any guidance method, and return intermediate predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDIMScheduler

from attnviz.audio import image_to_mel
from attnviz.models.pipelines import AuffusionPipeline
from loudness_parts.guidance import Guide


@torch.no_grad()
def sample(
    pipe: AuffusionPipeline,
    prompts: Sequence[str],
    guide: Guide,
    scale: float,
    *,
    steps: int,
    seeds: Sequence[int],
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Generate latents by DDIM.

    Returns
    -------
    latents : torch.Tensor, shape (prompts, channels, rows, columns)
    predictions : dict of int to torch.Tensor
        Guided predictions of the clean latents by timestep.
    """
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    keys, nothing = pipe.encode_prompt(list(prompts), torch.device("cpu"), 1, True)
    shape = (pipe.unet.config.in_channels, 16, 64)
    latents = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    predictions = {}
    for timestep in scheduler.timesteps.tolist():
        both = scale != 1
        given = torch.cat([latents, latents]) if both else latents
        embeddings = torch.cat([keys, nothing]) if both else keys
        signal = scheduler.alphas_cumprod[timestep].sqrt()
        noise = (1 - signal**2).sqrt()
        velocity = pipe.unet(given, timestep, encoder_hidden_states=embeddings).sample
        clean = signal * given - noise * velocity
        if both:
            conditional, unconditional = clean.chunk(2)
            clean = guide(conditional, unconditional, scale, timestep)
        predictions[timestep] = clean
        # Convert the prediction back to velocity.
        latents = scheduler.step((signal * latents - clean) / noise, timestep, latents).prev_sample
    return latents, predictions


@torch.no_grad()
def brightness(pipe: AuffusionPipeline, latents: torch.Tensor) -> np.ndarray:
    """Return the mean of each decoded image, in [0, 1]."""
    decoded = torch.cat([pipe.vae.decode(each[None]).sample[:, 0] for each in latents])
    return (decoded / 2 + 0.5).clamp(0, 1).mean((1, 2)).numpy()


@torch.no_grad()
def vocoded(pipe: AuffusionPipeline, image: np.ndarray) -> np.ndarray:
    """Return the waveform of an image ``(256, columns)`` in [0, 1]."""
    return pipe.vocoder(image_to_mel(torch.from_numpy(image)[None])).numpy()[0]
