"""What stands between capture and maps: which token each key is, which are kept, what a cell of a layer covers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import diffusers

from attnviz.capture import CapturedLayer
from attnviz.errors import CaptureError
from attnviz.maps import LayerAttention
from attnviz.pipelines.mixin import AuffusionMixin
from attnviz.text import TokenTable, clip_token_table

Tokens = Literal["text", "all"]


def check_tokens(tokens: str) -> None:
    """Refuse a choice of tokens other than ``"text"`` and ``"all"``.

    Raises
    ------
    CaptureError
        Naming the two.
    """
    if tokens not in ("text", "all"):
        raise CaptureError(f"tokens={tokens!r} is unknown; it is 'text' (no padding) or 'all'.")


def check_pipeline(pipe: Any, what: str) -> None:
    """Refuse what is no pipeline with a U-Net and one text encoder or conditioner.

    Parameters
    ----------
    pipe : object
        A pipeline of diffusers, it is hoped.
    what : str
        What it is to be, for the message: ``"traced"``.

    Raises
    ------
    CaptureError
        Naming its class, and what is expected.
    """
    if reason := _why_not(pipe):
        raise CaptureError(
            f"{type(pipe).__name__} cannot be {what}: {reason}. A pipeline with a U-Net and one text encoder or "
            "conditioner is expected, such as AuffusionPipeline or StableDiffusionPipeline."
        )


def _why_not(pipe: Any) -> str | None:
    """Say why the calls of a pipeline cannot be observed truthfully; None where they can."""
    unet = getattr(pipe, "unet", None)
    if unet is None:
        return "it has no U-Net"
    if not hasattr(pipe, "encode_prompt") or hasattr(pipe, "text_encoder_2"):
        return "it has several text encoders, or does not say what it conditions its U-Net on (encode_prompt)"
    if not {"prompt", "do_classifier_free_guidance"} <= inspect.signature(pipe.encode_prompt).parameters.keys():
        return "its encode_prompt is not called with the prompt, as Stable Diffusion's is"
    if isinstance(unet, diffusers.ModelMixin) and not isinstance(unet, diffusers.UNet2DConditionModel):
        return f"its U-Net is a {type(unet).__name__}, and the axes of a UNet2DConditionModel are known"
    if not hasattr(type(pipe), "guidance_scale"):
        return "it does not say its guidance scale while it runs, so how its maps were made would not be known"
    if hasattr(type(pipe), "do_perturbed_attention_guidance"):
        return "perturbed-attention guidance adds a third branch, whose rows are not told apart"
    if hasattr(type(pipe), "get_views"):
        return "it calls its U-Net for several views a step, whose maps do not lie on one grid"
    return None


def token_table(pipe: Any, prompt: str) -> TokenTable:
    """Give the token table of a prompt that the pipeline has just encoded.

    Warns
    -----
    TruncationWarning
        If words were cut off, and the pipeline has not said so itself.
    """
    # Auffusion's pipelines have just warned of words that were cut off; diffusers' own name none.
    warn = not isinstance(pipe, AuffusionMixin)
    conditioner = getattr(pipe, "conditioner", None)
    if conditioner is not None:
        return conditioner.token_table(prompt, warn=warn)
    return clip_token_table(pipe.tokenizer, prompt, warn=warn)


def kept_positions(tables: Sequence[TokenTable], tokens: Tokens) -> list[int]:
    """List the key positions kept, ascending: with ``"text"``, those that are not padding in every prompt."""
    rows = [table.rows if tokens == "all" else table.rows.query("kind != 'padding'") for table in tables]
    return sorted({int(position) for table in rows for position in table["position"]})


def on_spectrogram(layers: Mapping[str, CapturedLayer], factor: int) -> Mapping[str, LayerAttention]:
    """Hand captured layers on to `AttentionMaps.from_layers`, their strides in mel bands and spectrogram columns.

    Parameters
    ----------
    layers : mapping of str to CapturedLayer
        Each is looked up when it is asked for.
    factor : int
        Rows and columns of the spectrogram that one of the latents stands for.
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
