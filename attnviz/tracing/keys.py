"""Connect capture to maps: the token of each key, the kept positions, the spectrogram area of a cell."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import diffusers
import torch

from attnviz.capture import AttentionEdit, CapturedLayer
from attnviz.errors import CaptureError
from attnviz.maps import LayerAttention
from attnviz.models.families import Family, example_family
from attnviz.models.pipelines.mixin import AuffusionMixin
from attnviz.text import TokenTable, clip_token_table

Tokens = Literal["text", "all"]
EditOf = Callable[[Sequence[TokenTable]], AttentionEdit]
"""Makes the edit of a call from the token tables of its prompts."""


def check_tokens(tokens: str) -> None:
    """Raise unless `tokens` is ``"text"`` or ``"all"``.

    Raises
    ------
    CaptureError
        With the two values.
    """
    if tokens not in ("text", "all"):
        raise CaptureError(f"tokens={tokens!r} is unknown; expected 'text' (no padding) or 'all'.")


def check_pipeline(pipe: Any, what: str) -> None:
    """Raise unless an object is a pipeline with a U-Net and one text encoder or conditioner.

    Parameters
    ----------
    pipe : object
        The object to check.
    what : str
        Purpose as a participle, for the message: ``"traced"``.

    Raises
    ------
    CaptureError
        With the object's class, and what is expected.
    """
    if reason := _why_not(pipe):
        raise CaptureError(
            f"{type(pipe).__name__} cannot be {what}: {reason}. Expected what attnviz.load returns: an "
            "AuffusionPipeline, a StableDiffusionPipeline, or a model of one of attnviz.models.families."
            + (f"\n\n{example_family(pipe)}" if what == "traced" and hasattr(pipe, "components") else "")
        )


def check_family(pipe: Any, family: Family) -> None:
    """Raise unless a pipeline has the parts that a family names.

    Raises
    ------
    CaptureError
        With the part that is missing.
    """
    parts = [(part, getattr(family, part)) for part in ("denoiser", "encoder", "tokenizer", "formatted", "call")]
    for part, name in [*parts, *(("encoded", name) for name in family.encoders)]:
        if name is not None and getattr(pipe, name, None) is None:
            raise CaptureError(
                f"{type(pipe).__name__} has no {name}, which the family {family.name} gives as its {part}. Is it "
                "another pipeline, or was this part not loaded?"
            )


def _why_not(pipe: Any) -> str | None:
    """Return why the calls of a pipeline cannot be observed faithfully, or None."""
    if isinstance(pipe, str | os.PathLike):
        return f"it is a name. Load it first, attnviz.load({os.fspath(pipe)!r})"
    if isinstance(pipe, tuple):
        return "it is a pair. Of a model with a processor, pass both: trace(model, processor=processor)"
    unet = getattr(pipe, "unet", None)
    if unet is None and isinstance(pipe, torch.nn.Module):
        return "it is no pipeline, but perhaps a part of one, such as its denoiser or text encoder"
    if unet is None:
        return "it has no U-Net"
    if not hasattr(pipe, "encode_prompt") or hasattr(pipe, "text_encoder_2"):
        return "it has several text encoders, or no encode_prompt method for the U-Net's conditioning"
    if not {"prompt", "do_classifier_free_guidance"} <= inspect.signature(pipe.encode_prompt).parameters.keys():
        return "its encode_prompt does not take the prompt as Stable Diffusion's does"
    if isinstance(unet, diffusers.ModelMixin) and not isinstance(unet, diffusers.UNet2DConditionModel):
        return f"its U-Net is a {type(unet).__name__}, but only the axes of UNet2DConditionModel are known"
    if not hasattr(type(pipe), "guidance_scale"):
        return "it has no guidance_scale attribute during a call, so the guidance of its maps would be unknown"
    if hasattr(type(pipe), "do_perturbed_attention_guidance"):
        return "perturbed-attention guidance adds a third branch, whose rows cannot be told apart"
    if hasattr(type(pipe), "get_views"):
        return "it calls its U-Net for several views per step, whose maps do not share one grid"
    return None


def token_table(pipe: Any, prompt: str) -> TokenTable:
    """Return the token table of a prompt that the pipeline has just encoded.

    Warns
    -----
    TruncationWarning
        If words were cut off, unless the pipeline has already issued this warning.
    """
    # Auffusion's pipelines have already warned about words that were cut off; diffusers' warning lists none.
    warn = not isinstance(pipe, AuffusionMixin)
    conditioner = getattr(pipe, "conditioner", None)
    if conditioner is not None:
        return conditioner.token_table(prompt, warn=warn)
    return clip_token_table(pipe.tokenizer, prompt, warn=warn)


def kept_positions(tables: Sequence[TokenTable], tokens: Tokens) -> list[int]:
    """Return the kept key positions, ascending; with ``"text"``, those that are not padding in every prompt."""
    rows = [table.rows if tokens == "all" else table.rows.query("kind != 'padding'") for table in tables]
    return sorted({int(position) for table in rows for position in table["position"]})


def on_spectrogram(layers: Mapping[str, CapturedLayer], factor: int) -> Mapping[str, LayerAttention]:
    """Convert captured layers for `AttentionMaps.from_layers`: strides become mel bands and spectrogram columns.

    Parameters
    ----------
    layers : mapping of str to CapturedLayer
        Captured layers; each is converted on access.
    factor : int
        Spectrogram rows and columns per row and column of the latents.
    """
    return _OnSpectrogram(layers, factor)


class _OnSpectrogram(Mapping[str, LayerAttention]):
    def __init__(self, layers: Mapping[str, CapturedLayer], factor: int) -> None:
        self._layers, self._factor = layers, factor

    def __getitem__(self, name: str) -> LayerAttention:
        layer = self._layers[name]
        rows, columns = layer.stride
        stride = (float(rows * self._factor), float(columns * self._factor))
        return LayerAttention(layer.attention, layer.dims, layer.heads, stride)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)
