"""Checks of what a pipeline is called with, before any model runs."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import diffusers
import transformers

from attnviz.arguments import whole_number
from attnviz.audio import MEL
from attnviz.errors import AttnVizError, AudioError, PromptError
from attnviz.io.choices import check_given


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
        check_given(each)
    check_negative_prompts(negative_prompt, len(prompts))
    return len(prompts)


def check_negative_prompts(negative_prompt: Any, prompts: int) -> list[str] | None:
    """Return one negative prompt for each prompt, or None without negative prompts.

    Raises
    ------
    PromptError
        If they are not strings, or do not match the prompts in number. An empty one is a text like others.
    """
    if negative_prompt is None:
        return None
    negatives = _as_list(negative_prompt, "negative_prompt")
    if isinstance(negative_prompt, str):
        return negatives * prompts
    if len(negatives) != prompts:
        raise PromptError(
            f"{len(negatives)} negative prompts for {prompts} prompts; give one string for all, or a "
            "list with one for each."
        )
    return negatives


def untupled(prompt: Any) -> Any:
    """Convert a tuple of prompts to a list, as needed by diffusers, and return other values unchanged."""
    return list(prompt) if isinstance(prompt, tuple) else prompt


def check_size(height: int, width: int, factor: int, *, bands: int | None, latent_only: bool) -> tuple[int, int]:
    """Return the image size as integers, or raise if the VAE or vocoder does not support it.

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
        If it is not supported. The message contains the size and the nearest allowed one.
    """
    for name, size in (("height", height), ("width", width)):
        if not _is_whole(size) or size <= 0 or size % factor:
            is_number = isinstance(size, Real) and math.isfinite(size)
            nearest = max(factor, round(size / factor) * factor) if is_number else factor
            raise AudioError(
                f"{name}={size!r} is not a positive multiple of {factor}, the VAE's factor; the nearest is "
                f"{nearest}. A column is {1000 * MEL.hop_length / MEL.sampling_rate:g} ms of audio."
            )
        if size > MOST_PIXELS:
            raise AudioError(f"{name}={size} is above {MOST_PIXELS}, the most that is generated in one call.")
    if not latent_only and height != (bands or MEL.n_mels):
        raise AudioError(
            f"height={height}, and the vocoder reads {bands or MEL.n_mels} mel bands. Leave height out, or "
            "ask for output_type='latent'."
        )
    return int(height), int(width)


def check_duration(duration: float | None, width: int, default: float) -> float:
    """Return the number of seconds of audio to keep.

    Returns
    -------
    float
        `duration`, or by default the smaller of `default` and the duration of `width` columns.

    Raises
    ------
    AudioError
        If it is not in (0, seconds of `width` columns].
    """
    most = width * MEL.hop_length / MEL.sampling_rate
    if duration is None:
        return min(default, most)
    if not is_finite(duration) or not 0 < duration <= most:
        unit = " Was it given in milliseconds or samples?" if is_finite(duration) and duration > most else ""
        raise AudioError(
            f"duration={duration!r}: it must be above 0 s and at most {most:g} s, the duration of {width} "
            f"columns.{unit}"
        )
    return float(duration)


def check_output_type(output_type: str) -> None:
    """Raise unless the output type is ``"audio"`` or ``"latent"``.

    Raises
    ------
    AttnVizError
        If it is unknown.
    """
    if output_type not in ("audio", "latent"):
        raise AttnVizError(
            f"output_type={output_type!r} is unknown; it is 'audio' (audio, spectrogram and image) or 'latent'."
        )


def check_strength(strength: float) -> float:
    """Raise if a strength is outside [0, 1].

    Raises
    ------
    AttnVizError
        If it is outside the range.
    """
    if not is_finite(strength) or not 0 <= strength <= 1:
        raise AttnVizError(f"strength={strength!r} is not a number in [0, 1]. Was it given in percent?")
    return float(strength)


def check_context(context: Any) -> float:
    """Check the duration of the audio around an inpainted span that the model sees.

    Raises
    ------
    AttnVizError
        If it is not a number of seconds, or is negative.
    """
    if isinstance(context, bool) or not isinstance(context, Real) or not float(context) >= 0:
        raise AttnVizError(
            f"context={context!r} is not a number of seconds of at least 0; infinity uses the whole clip."
        )
    return float(context)


def check_switch(name: str, value: Any) -> bool:
    """Raise unless a value is True or False.

    Raises
    ------
    AttnVizError
        If it is neither.
    """
    if not isinstance(value, bool):
        raise AttnVizError(f"{name}={value!r} is neither True nor False.")
    return value


def check_guidance(guidance_scale: float) -> float:
    """Raise unless a guidance scale is a finite number.

    Raises
    ------
    AttnVizError
        If it is not; the message contains typical values.
    """
    if not is_finite(guidance_scale):
        raise AttnVizError(
            f"guidance_scale={guidance_scale!r} is not a finite number; usual are 1 (no guidance) to 15."
        )
    return float(guidance_scale)


def check_clip_skip(clip_skip: Any, encoder: Any) -> None:
    """Raise unless `clip_skip` is a valid number of layers of a text encoder that supports skipping.

    Raises
    ------
    PromptError
        If it is not; the message contains the limit.
    """
    if clip_skip is None:
        return
    layers = encoder.config.num_hidden_layers
    if not _is_whole(clip_skip) or not 0 <= clip_skip <= layers:
        raise PromptError(
            f"clip_skip={clip_skip!r} is not a whole number from 0 to {layers}, the layers of the text encoder."
        )
    if not hasattr(encoder, "text_model"):  # where diffusers looks for the last norm
        raise PromptError(
            f"clip_skip={clip_skip!r} cannot be done: diffusers {diffusers.__version__} does not find the last "
            f"layer in the text encoder of transformers {transformers.__version__}. Leave it out."
        )


MOST = 10_000  # steps or samples of one call
MOST_PIXELS = 2**16  # columns or rows of one image: 655 s of audio


def check_count(name: str, count: Any, most: int = MOST) -> int:
    """Return a whole number from 1 to `most` as an int, or raise an AttnVizError with its name."""
    return whole_number(name, count, most=most, error=AttnVizError)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _as_list(prompt: Any, name: str) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise PromptError(f"{name}={prompt!r} is not a string or a non-empty list of strings.")
    return list(prompts)
