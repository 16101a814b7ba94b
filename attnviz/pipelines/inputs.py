"""Checks of what a pipeline is called with, before any model runs."""

from __future__ import annotations

import math
from typing import Any

from attnviz.audio import MEL
from attnviz.errors import AttnVizError, AudioError, PromptError


def check_prompts(prompt: Any, negative_prompt: Any = None) -> int:
    """Count the prompts, or say what is wrong with them.

    Parameters
    ----------
    prompt : str or list of str
        One prompt or several.
    negative_prompt : str or list of str, optional
        One for all prompts, or one for each.

    Returns
    -------
    int
        Number of prompts.

    Raises
    ------
    PromptError
        If a prompt is missing, empty or not a string, or the negative prompts do not match in number.
    """
    prompts = _as_list(prompt, "prompt")
    for each in prompts:
        if not each.strip():
            raise PromptError(
                f"The prompt {each!r} is empty; a few words are expected, for example 'a dog barks'."
            )
    if negative_prompt is not None:
        negatives = _as_list(negative_prompt, "negative_prompt")
        if isinstance(negative_prompt, list) and len(negatives) != len(prompts):
            raise PromptError(
                f"{len(negatives)} negative prompts for {len(prompts)} prompts; give one string for all, or a "
                "list with one for each."
            )
    return len(prompts)


def check_size(height: int, width: int, factor: int, *, bands: int | None, latent_only: bool) -> None:
    """Refuse an image size the VAE or the vocoder cannot work with.

    Parameters
    ----------
    height, width : int
        Image size in pixels: mel bands and frames.
    factor : int
        Pixels per latent cell of the VAE.
    bands : int or None
        Mel bands of the vocoder.
    latent_only : bool
        Whether latents are returned and no audio is made.

    Raises
    ------
    AudioError
        Naming the size, what is allowed and the nearest allowed one.
    """
    for name, size in (("height", height), ("width", width)):
        if isinstance(size, bool) or not isinstance(size, int) or size <= 0 or size % factor:
            nearest = max(factor, round(size / factor) * factor) if isinstance(size, int | float) else factor
            raise AudioError(
                f"{name}={size!r} is not a positive multiple of {factor}, the VAE's factor; the nearest is "
                f"{nearest}. A column is {1000 * MEL.hop_length / MEL.sample_rate:g} ms of audio."
            )
    if not latent_only and height != (bands or MEL.n_mels):
        raise AudioError(
            f"height={height}, and the vocoder reads {bands or MEL.n_mels} mel bands. Leave height out, or "
            "ask for output_type='latent'."
        )


def check_duration(duration: float | None, width: int, default: float) -> float:
    """Settle how many seconds of audio are kept.

    Returns
    -------
    float
        `duration`, or where it is None the smaller of `default` and what `width` columns hold.

    Raises
    ------
    AudioError
        If it is not in (0, seconds of `width` columns].
    """
    most = width * MEL.hop_length / MEL.sample_rate
    if duration is None:
        return min(default, most)
    if not math.isfinite(duration) or not 0 < duration <= most:
        raise AudioError(
            f"duration={duration} s is not in (0, {most:g}], which is what {width} columns hold. Was it given "
            "in milliseconds or samples?"
        )
    return float(duration)


def check_output_type(output_type: str) -> None:
    """Refuse an output type other than ``"audio"`` and ``"latent"``.

    Raises
    ------
    AttnVizError
        Naming the two.
    """
    if output_type not in ("audio", "latent"):
        raise AttnVizError(
            f"output_type={output_type!r} is unknown; it is 'audio' (audio, spectrogram and image) or 'latent'."
        )


def check_strength(strength: float, num_inference_steps: int) -> None:
    """Refuse a strength outside [0, 1], or so small that no step is left.

    Raises
    ------
    AttnVizError
        Naming the strength, the range and the number of steps it leaves.
    """
    if not math.isfinite(strength) or not 0 <= strength <= 1:
        raise AttnVizError(f"strength={strength} is not in [0, 1]. Was it given in percent?")
    if int(num_inference_steps * strength) < 1:
        raise AttnVizError(
            f"strength={strength} of {num_inference_steps} steps leaves no step to run. Raise one of the two."
        )


def _as_list(prompt: Any, name: str) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise PromptError(f"{name}={prompt!r} is not a string or a non-empty list of strings.")
    return list(prompts)
