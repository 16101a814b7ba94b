"""How a pipeline call was made, read from the pipeline while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers

import attnviz


def settings(pipe: Any, guided: bool, negative_prompt: str | list[str] | None) -> dict[str, Any]:
    """Collect what a pipeline has settled before its loop begins.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline, inside a call.
    guided : bool
        Whether classifier-free guidance is on.
    negative_prompt : str, list of str or None
        As the call got it.

    Returns
    -------
    dict
        Values that JSON can hold. What two runs of different settings differ in is here, so that their maps
        are never merged.
    """
    return {
        **model(pipe),
        "guidance_scale": float(pipe.guidance_scale) if guided else None,
        "guidance_rescale": float(getattr(pipe, "guidance_rescale", 0.0)),
        "negative_prompt": negative_prompt,
        "clip_skip": pipe.clip_skip,
        "cross_attention_kwargs": pipe.cross_attention_kwargs,
    }


def model(pipe: Any) -> dict[str, Any]:
    """Collect what is looked at, whatever the call: checkpoint, precision, noise schedule, LoRA and versions."""
    return {
        "pipeline": type(pipe).__name__,
        "model": pipe.config.get("_name_or_path", ""),
        "revision": pipe.config.get("_revision"),
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "scheduler": type(pipe.scheduler).__name__,
        "scheduler_config": {
            name: value for name, value in pipe.scheduler.config.items() if not name.startswith("_")
        },
        "adapters": adapters(pipe.unet),
        "versions": {
            "attnviz": attnviz.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
    }


def adapters(unet: torch.nn.Module) -> dict[str, list[float]]:
    """Map each active adapter of a U-Net (LoRA) to its scales over the layers, each listed once."""
    scales: dict[str, set[float]] = {}
    for module in unet.modules():
        scaling, active = getattr(module, "scaling", None), getattr(module, "active_adapters", None)
        if isinstance(scaling, Mapping) and isinstance(active, list):
            for name in set(active) & set(scaling):
                scales.setdefault(name, set()).add(float(scaling[name]))
    return {name: sorted(values) for name, values in sorted(scales.items())}


def seeds(generator: torch.Generator | list[torch.Generator] | None) -> list[int | None]:
    """Seed of each generator, where it says what noise will come: None for one that was used before."""
    generators = generator if isinstance(generator, list) else [generator] if generator is not None else []
    return [each.initial_seed() if _is_fresh(each) else None for each in generators]


def digest(tensor: Any) -> str | None:
    """Shorten a tensor's numbers to a fingerprint; None where there is no tensor."""
    if not isinstance(tensor, torch.Tensor):
        return None
    numbers = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _is_fresh(generator: torch.Generator) -> bool:
    fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    return torch.equal(generator.get_state(), fresh.get_state())
