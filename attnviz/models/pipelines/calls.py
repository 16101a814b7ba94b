"""Checks of a call as a whole, against the diffusers pipeline and scheduler it goes to."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import SchedulerMixin

from attnviz.errors import AttnVizError, CheckpointError
from attnviz.models.conditioning import TextConditioner
from attnviz.models.pipelines import inputs
from attnviz.models.vocoder import HifiGan

_INSTEAD = {
    "height": "the height is the mel bands of the vocoder",
    "image": "give the clip as audio=",
    "mask_image": "give the part to regenerate as span= or mask=",
    "padding_mask_crop": "it is for pictures, and a spectrogram is not cropped",
    "prompt_embeds": "give the prompt itself",
}

_MODULE = (torch.nn.Module, "a module of PyTorch")
_KINDS: Mapping[str, tuple[type, str]] = {
    "scheduler": (SchedulerMixin, "a scheduler of diffusers"),
    "vocoder": (HifiGan, "an attnviz.models.vocoder.HifiGan"),
    "conditioner": (TextConditioner, "an attnviz.models.conditioning.TextConditioner"),
    **dict.fromkeys(("vae", "unet", "text_encoder"), _MODULE),
}
"""Kinds of the parts of a pipeline, and what to call them."""


def check_arguments(own: Callable[..., Any], diffusers_call: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise for further arguments that the pipeline of diffusers would ignore, or that have no meaning here.

    Parameters
    ----------
    own, diffusers_call : callable
        ``__call__`` of the pipeline, and of the diffusers class it calls.
    given : mapping
        Arguments by name that `own` does not name itself.

    Raises
    ------
    AttnVizError
        Naming the argument, and the one that was likely meant.
    """
    for name in ("eta", "guidance_rescale"):
        if name in given and not inputs.is_finite(given[name]):
            raise AttnVizError(f"{name}={given[name]!r} is not a finite number.")
    generator = given.get("generator")
    listed = generator if isinstance(generator, list) else [generator]
    if generator is not None and not all(isinstance(each, torch.Generator) for each in listed):
        raise AttnVizError(
            f"generator={generator!r} is not a torch.Generator, nor a list of them. For a seed, give "
            f"torch.Generator().manual_seed({generator if isinstance(generator, int) else 0})."
        )
    theirs = _named(diffusers_call) - _INSTEAD.keys()
    for name in given:
        if name in theirs:
            continue
        if name in _INSTEAD:
            raise AttnVizError(f"{name}= has no meaning here: {_INSTEAD[name]}.")
        raise AttnVizError(_unknown(name, sorted(_named(own) | theirs), "argument"))


def check_parts(initialiser: Callable[..., Any], parts: Mapping[str, Any], replaced: Mapping[str, Any]) -> None:
    """Raise if parts are missing, or are not parts of an Auffusion pipeline.

    Raises
    ------
    CheckpointError
        With the part and the known parts.
    """
    names = _named(initialiser)
    for name in replaced:
        if name not in names:
            raise CheckpointError(_unknown(name, sorted(names), "part"))
        kind, expected = _KINDS.get(name, (object, ""))
        if replaced[name] is not None and not isinstance(replaced[name], kind):
            raise CheckpointError(
                f"{name}={replaced[name]!r:.80} is a {type(replaced[name]).__name__}; expected {expected}."
            )
    if foreign := sorted(parts.keys() - names):
        raise CheckpointError(
            f"A pipeline with the parts {', '.join(foreign)} cannot become an Auffusion pipeline; expected a "
            "pipeline of Stable Diffusion 1, or another Auffusion pipeline."
        )
    needed = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    if missing := [name for name in needed if name not in parts and name not in replaced]:
        raise CheckpointError(
            f"The pipeline has no {', '.join(missing)}, which an Auffusion pipeline needs; pass them by name."
        )


def check_steps(scheduler: Any, steps: int, given: Mapping[str, Any], strength: float = 1.0) -> int:
    """Raise if the scheduler does not support a number of steps, or `strength` leaves no step.

    Parameters
    ----------
    scheduler : diffusers.SchedulerMixin
        Scheduler; it is not changed.
    steps : int
        Denoising steps, unless `given` has ``timesteps`` or ``sigmas``.
    given : mapping
        Further arguments of the call.
    strength : float
        Fraction of the steps to run, in [0, 1].

    Returns
    -------
    int
        `steps`, as a plain integer.

    Raises
    ------
    AttnVizError
        With the number of steps and the limit.
    """
    steps = inputs.check_count("num_inference_steps", steps)
    own = {name: given[name] for name in ("timesteps", "sigmas") if given.get(name) is not None}
    if len(own) > 1:
        raise AttnVizError("Both timesteps and sigmas are given; give one of them.")
    limit = scheduler.config.get("num_train_timesteps")
    if not own and limit is not None and steps > limit:
        raise AttnVizError(
            f"num_inference_steps={steps} is more than the {limit} steps that {type(scheduler).__name__} has."
        )
    timeline = _timeline(scheduler, own or {"num_inference_steps": steps})
    count = len(timeline) if own else steps
    skipped = count - min(int(count * strength), count)
    if len(timeline[skipped * scheduler.order :]) < 1 or skipped >= count:
        raise AttnVizError(
            f"strength={strength:g} of {count} steps leaves no step to run. Increase one of the two."
        )
    return steps


def check_latents(given: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Raise if initial latents have another shape than the call needs.

    Raises
    ------
    AttnVizError
        With the two shapes.
    """
    latents = given.get("latents")
    if latents is None:
        return
    if not isinstance(latents, torch.Tensor) or tuple(latents.shape) != shape:
        got = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
        raise AttnVizError(
            f"latents is {got}; a tensor of shape {shape} (images, channels, rows, columns) is needed for this "
            "prompt, num_images_per_prompt, height and width."
        )


def _timeline(scheduler: Any, arguments: dict[str, Any]) -> Sequence[Any]:
    """Return the timesteps that a copy of the scheduler sets."""
    name, value = next(iter(arguments.items()))
    if name not in inspect.signature(scheduler.set_timesteps).parameters:
        raise AttnVizError(f"{type(scheduler).__name__} does not support custom {name}; omit {name}=.")
    trial = copy.deepcopy(scheduler)
    try:
        trial.set_timesteps(**arguments)
    except (ValueError, TypeError, IndexError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise AttnVizError(f"{type(scheduler).__name__} cannot be set to {name}={value!r}: {error}.") from error
    timeline: Sequence[Any] = trial.timesteps
    trained, highest = len(getattr(trial, "alphas_cumprod", ())), max(map(float, timeline), default=0.0)
    if trained and highest >= trained:
        raise AttnVizError(
            f"{name}={value!r} requires timestep {highest:g}, but {type(scheduler).__name__} ends at "
            f"{trained - 1}; use fewer steps."
        )
    if len(timeline) < 1:
        raise AttnVizError(f"{name}={value!r} leaves no step to run; at least one is needed.")
    return timeline


def _named(function: Callable[..., Any]) -> set[str]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind not in variable} - {"self"}


def _unknown(name: str, known: list[str], what: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean {close[0]}=? " if close else ""
    return f"There is no {what} {name}=. {meant}There are: {', '.join(known)}."
