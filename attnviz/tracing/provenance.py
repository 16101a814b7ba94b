"""Record the settings of a call while it runs; `attnviz.capture.identity` records weights, state and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL.Image import Image

import attnviz
from attnviz import bundled
from attnviz.capture.identity import Acting, Digests, active_adapters, input_digest
from attnviz.models.families import Family


def settings(pipe: Any, guided: bool, negative_prompt: str | list[str] | None) -> dict[str, Any]:
    """Collect the settings of a pipeline before its loop begins.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline, inside a call.
    guided : bool
        Whether classifier-free guidance is on.
    negative_prompt : str, list of str or None
        Argument of the call.

    Returns
    -------
    dict
        JSON values. Every setting by which two runs can differ is included, so that their maps are not merged.
    """
    return {
        **model(pipe),
        "guidance_scale": _guidance_scale(pipe, guided),
        "guidance_interval": list(getattr(pipe, "guidance_interval", (0.0, 1.0))) if guided else None,
        "guidance_rescale": float(getattr(pipe, "guidance_rescale", 0.0)),
        "negative_prompt": negative_prompt,
        "clip_skip": getattr(pipe, "clip_skip", None),
        "cross_attention_kwargs": _plain(getattr(pipe, "cross_attention_kwargs", None)),
        "settings": _own_settings(pipe),
    }


def family_settings(
    pipe: Any, family: Family, scheduler: Any, arguments: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect the settings of a call of a family's pipeline.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    family : Family
    scheduler : object
        Noise schedule of the call.
    arguments : mapping
        Arguments of the call, defaults included.
    settings : mapping
        Those of them that are recorded under their own names.

    Returns
    -------
    dict
        JSON values, as in `settings`.
    """
    scale = arguments.get("guidance_scale")
    return {
        **model(pipe, getattr(pipe, family.denoiser), scheduler),
        "family": family.name,
        "guidance_scale": None if scale is None else float(scale),
        "negative_prompt": arguments.get("negative_prompt"),
        "seeds": seeds(arguments.get("generator")),
        "latents": digest(arguments.get("latents")),
        "settings": dict(settings),
    }


def model(pipe: Any, denoiser: Any = None, scheduler: Any = None) -> dict[str, Any]:
    """Collect what does not depend on the call: checkpoint, dtype, noise schedule, LoRA and versions.

    Parameters
    ----------
    pipe : object
    denoiser, scheduler : object, optional
        Those of the pipeline, by default its ``unet`` and its ``scheduler``.
    """
    denoiser = pipe.unet if denoiser is None else denoiser
    scheduler = pipe.scheduler if scheduler is None else scheduler
    config = getattr(pipe, "config", {})
    return {
        "pipeline": type(pipe).__name__,
        "model": config.get("_name_or_path", ""),
        "revision": config.get("_revision"),
        "dtype": str(denoiser.dtype).removeprefix("torch."),
        "scheduler": type(scheduler).__name__,
        "scheduler_config": {name: value for name, value in scheduler.config.items() if not name.startswith("_")},
        "adapters": active_adapters(denoiser),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of attnviz and of the libraries that compute."""
    return {
        "attnviz": attnviz.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def acting(pipe: Any, family: Family | None = None) -> Acting:
    """Observe everything that acts on a pipeline's denoiser and its conditioning in each call.

    Parts that run before or after the denoiser are excluded: text and image encoders, the vocoder. Only the
    weights of the VAE are included: it encodes clips and decodes spectrograms. Of a family's pipeline, only the
    denoiser is called with what the others made.
    """
    components = getattr(pipe, "components", {})  # not of a model that is no pipeline of diffusers
    parts = {name: part for name, part in components.items() if isinstance(part, torch.nn.Module)}
    weighed = {name: part for name, part in parts.items() if name == "vae"}
    if family is not None:
        return Acting({family.denoiser: getattr(pipe, family.denoiser)}, weighed, latents=family.latents)
    return Acting({name: part for name, part in parts.items() if name not in _GIVING}, weighed)


def completed(settings: Mapping[str, Any], acted: Mapping[str, Any]) -> dict[str, Any]:
    """Join settings and digests; the model is named "bundled" only if the weights are the bundled ones."""
    made = {**settings, **acted}
    if made["model"] == bundled.NAME and made["weights"].get("unet") != bundled.unet_digest(made["dtype"]):
        made["model"] = f"{bundled.NAME}, with other weights"
    return made


def seeds(generator: torch.Generator | list[torch.Generator] | None) -> list[int | None]:
    """Return the seed of each generator; None for a used one, whose seed does not determine the noise."""
    generators = generator if isinstance(generator, list) else [generator] if generator is not None else []
    return [each.initial_seed() if _is_fresh(each) else None for each in generators]


def digest(tensor: Any) -> str | None:
    """Digest a tensor (equal neighbours along the first axis once); return None if there is no tensor."""
    if isinstance(tensor, list) and tensor and all(isinstance(each, torch.Tensor | Image) for each in tensor):
        tensor = torch.stack([torch.as_tensor(np.asarray(each)) for each in tensor])
    elif isinstance(tensor, np.ndarray | Image):
        tensor = torch.as_tensor(np.asarray(tensor))
    if not isinstance(tensor, torch.Tensor):
        return None
    return input_digest(tensor, Digests())


# Parts that run before or after the denoiser.
_GIVING = {
    *("vae", "vocoder", "text_encoder", "conditioner", "image_encoder", "safety_checker"),
    *("depth_estimator", "image_normalizer", "prior", "prior_text_encoder"),
}
# Attributes of the call that are recorded elsewhere, or that only show progress.
_NO_SETTINGS = {"duration", "num_timesteps", "interrupt", "guidance_scale", "guidance_rescale", "clip_skip"}
_NO_SETTINGS |= {"cross_attention_kwargs", "eta"}


def _guidance_scale(pipe: Any, guided: bool) -> float | None:
    """Return the active guidance scale (by an unconditional branch or a distilled U-Net's embedding), or None."""
    embedded = getattr(pipe.unet.config, "time_cond_proj_dim", None) is not None
    return float(pipe.guidance_scale) if guided or embedded else None


def _own_settings(pipe: Any) -> dict[str, Any]:
    """Return settings that a pipeline stores for its loop, as diffusers does: ``_pag_scale`` and the like."""
    kept = {
        name.lstrip("_"): value
        for name, value in vars(pipe).items()
        if name.startswith("_") and isinstance(value, int | float | str) and not isinstance(value, bool)
    }
    return {name: value for name, value in sorted(kept.items()) if name not in _NO_SETTINGS}


def _plain(value: Any) -> Any:
    """Convert a value to JSON values; a tensor becomes its digest."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return digest(value) if isinstance(value, torch.Tensor) else value


def _is_fresh(generator: torch.Generator) -> bool:
    fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    return torch.equal(generator.get_state(), fresh.get_state())
