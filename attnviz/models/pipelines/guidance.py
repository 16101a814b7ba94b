"""Classifier-free guidance in a part of the noise schedule only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WHOLE = (0.0, 1.0)


@contextmanager
def guided_within(pipe: Any, interval: tuple[float, float]) -> Iterator[None]:
    """Have a pipeline's loop guide inside an interval of timesteps, and predict with the prompt alone outside it.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        A Stable Diffusion pipeline, about to be called.
    interval : (float, float)
        Lowest and highest timestep with guidance, as fractions of the training timesteps; the highest itself is
        outside.

    Notes
    -----
    Source: Kynkäänniemi et al., Applying Guidance in a Limited Interval Improves Sample and Distribution Quality
    in Diffusion Models (arXiv 2404.07724).

    The loop is diffusers' own, which combines ``unconditional + scale x (conditional - unconditional)``. Outside
    the interval the U-Net's unconditional rows are replaced by the conditional ones, so that this is the
    conditional prediction to the last bit, whatever the scale. The batch keeps its rows throughout: attention is
    recorded in the same way at every step. At the whole schedule nothing is hooked.
    """
    if interval == WHOLE:
        yield
        return
    timesteps = pipe.scheduler.config.num_train_timesteps
    low, high = (fraction * timesteps for fraction in interval)

    def limit(unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        timestep = float(torch.as_tensor(kwargs["timestep"] if "timestep" in kwargs else args[1]).flatten()[0])
        if low <= timestep < high or not pipe.do_classifier_free_guidance:
            return None
        conditional = output[0].chunk(2)[1]
        return (torch.cat([conditional, conditional]), *output[1:])

    handle = pipe.unet.register_forward_hook(limit, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
