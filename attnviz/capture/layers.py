"""Find the attention layers of a U-Net, and check that each can be observed faithfully."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessorNPU,
    CustomDiffusionXFormersAttnProcessor,
    IPAdapterXFormersAttnProcessor,
    XFormersAttnAddedKVProcessor,
    XFormersAttnProcessor,
    XLAFlashAttnProcessor2_0,
)
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from attnviz.arguments import public
from attnviz.errors import CaptureError
from attnviz.models.families import STABLE_DIFFUSION, Family

OTHER_KERNELS: tuple[type, ...] = (
    XFormersAttnProcessor,
    XFormersAttnAddedKVProcessor,
    CustomDiffusionXFormersAttnProcessor,
    IPAdapterXFormersAttnProcessor,
    XLAFlashAttnProcessor2_0,
    AttnProcessorNPU,
)
"""Processors that call a kernel other than torch's, which cannot be tapped."""

_PASSED = {"down": 0, "mid": 1, "up": 2}


@dataclass(frozen=True)
class AttentionLayer:
    """One attention module and the transformer block that determines its grid.

    Attributes
    ----------
    name : str
        Path of the transformer inside the U-Net (``"down_blocks.0.attentions.0"``), followed by
        ``.transformer_blocks.N`` if that transformer has more than one block.
    path : str
        Full path of the attention module.
    attention : diffusers.models.attention_processor.Attention
        The module itself.
    transformer : diffusers.models.transformers.transformer_2d.Transformer2DModel or None
        The enclosing block. Only its 4-D input has rows and columns.
    """

    name: str
    path: str
    attention: Attention
    transformer: Transformer2DModel | None

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        found = getattr(self.attention, "heads", None) or getattr(self.attention, "num_heads", None)
        if not isinstance(found, int):
            raise CaptureError(
                f"{self.path} has no whole number of heads ({found!r}) in its attribute heads or num_heads. Set "
                f"one: {type(self.attention).__name__}.heads = 8."
            )
        return found


class CrossAttentionLayer(AttentionLayer):
    """A layer that attends to the prompt."""


@public
def find_cross_attention(unet: nn.Module) -> list[CrossAttentionLayer]:
    """List every cross-attention layer of a U-Net, in the order of the forward pass.

    Parameters
    ----------
    unet : torch.nn.Module
        A diffusers U-Net, for example ``UNet2DConditionModel``.

    Returns
    -------
    list of CrossAttentionLayer
        All layers: 16 for Stable Diffusion 1.x.

    Raises
    ------
    CaptureError
        If the U-Net has no cross-attention, or one of the layers cannot be observed: it is compiled, patched by
        token merging, skipped by a feature cache, run by a kernel other than torch's, or outside a 2-D
        transformer, so that its grid is not known.
    """
    refuse_rewritten(unet)
    modules = dict(unet.named_modules())
    layers = [
        CrossAttentionLayer(*_located(path, module, modules))
        for path, module in modules.items()
        if isinstance(module, Attention) and module.is_cross_attention
    ]
    if not layers:
        raise CaptureError(
            f"{type(unet).__name__} has no cross-attention module (diffusers' Attention with a "
            "cross_attention_dim). Was a U-Net without text conditioning, or another library's, passed?"
        )
    return _in_order(layers)


def _in_order(layers: list[CrossAttentionLayer]) -> list[CrossAttentionLayer]:
    # Diffusers registers the middle block last.
    return sorted(layers, key=lambda layer: _PASSED.get(layer.path.split("_", 1)[0], len(_PASSED)))


def find_sites(denoiser: nn.Module, family: Family) -> list[CrossAttentionLayer]:
    """List every attention module of a denoiser that attends to the text, in the order the signal passes them.

    Parameters
    ----------
    denoiser : torch.nn.Module
    family : Family
        Says which they are.

    Raises
    ------
    CaptureError
        If there is none, or one of them cannot be observed faithfully; see `find_cross_attention`.
    """
    if family.queries.has_freq and family.name == STABLE_DIFFUSION.name:
        return find_cross_attention(denoiser)
    refuse_rewritten(denoiser)
    modules = dict(denoiser.named_modules())
    found = [(path, module) for path, module in modules.items() if family.is_site(path, module)]
    if not found:
        raise CaptureError(
            f"{type(denoiser).__name__} has no module at {family.sites}, where {family.name} attends to its text. "
            "Is it another model's, or another version's?"
        )
    layers = []
    for path, module in found:
        attention: Any = module
        if family.queries.has_freq:
            layers.append(CrossAttentionLayer(*_located(path, attention, modules)))
        else:
            _check_processor(path, getattr(attention, "processor", None))
            layers.append(CrossAttentionLayer(path.rpartition(".")[0], path, attention, None))
    return _in_order(layers)


def find_self_attention(unet: nn.Module) -> list[AttentionLayer]:
    """List every self-attention layer of a U-Net inside a 2-D transformer; the list may be empty.

    Raises
    ------
    CaptureError
        As `find_cross_attention`.
    """
    refuse_rewritten(unet)
    modules = dict(unet.named_modules())
    return [
        AttentionLayer(*_located(path, module, modules))
        for path, module in modules.items()
        if isinstance(module, Attention) and not module.is_cross_attention
    ]


def find_self_sites(denoiser: nn.Module, family: Family) -> list[AttentionLayer]:
    """List every module of a denoiser in which the audio attends to itself alone; the list may be empty.

    Raises
    ------
    CaptureError
        As `find_cross_attention`.
    """
    if family.queries.has_freq:
        return find_self_attention(denoiser)
    if family.self_sites is None:
        return []
    found: list[AttentionLayer] = []
    for path, module in denoiser.named_modules():
        if re.fullmatch(family.self_sites, path):
            attention: Any = module
            _check_processor(path, getattr(attention, "processor", None))
            found.append(AttentionLayer(path.rpartition(".")[0], path, attention, None))
    return found


def remedy(layer: AttentionLayer) -> str:
    """Return the sentence that says how a module gets attention that can be observed."""
    if not hasattr(layer.attention, "processor"):
        return (
            'Call set_attn_implementation("sdpa") of a model of transformers; in a module of your own, call '
            "torch.nn.functional.scaled_dot_product_attention."
        )
    if layer.transformer is not None:
        # Not set_default_attn_processor(), which knows diffusers' processors alone, and installs the classic one.
        return "Call unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor2_0())."
    return "Put diffusers' own processor back into its slot (the attribute processor), or load the model again."


def block_strides(unet: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the number of latent rows and columns that one cell of each block spans.

    Parameters
    ----------
    unet : torch.nn.Module
        A diffusers U-Net.

    Returns
    -------
    dict of str to (int, int)
        By the path of the block (``"down_blocks.1"``). A stride-2 convolution halves a grid and rounds up, so the
        stride follows from the modules passed, not from a count of cells.
    """
    strides: dict[str, tuple[int, int]] = {}
    rows, columns = 1, 1
    for number, block in enumerate(getattr(unet, "down_blocks", ())):
        strides[f"down_blocks.{number}"] = (rows, columns)
        for sampler in getattr(block, "downsamplers", None) or ():
            step = getattr(sampler.conv, "stride", 1)
            down, across = step if isinstance(step, tuple) else (step, step)
            rows, columns = rows * down, columns * across
    strides["mid_block"] = (rows, columns)
    below = [stride for path, stride in strides.items() if path != "mid_block"]
    for number, block in enumerate(getattr(unet, "up_blocks", ())):
        strides[f"up_blocks.{number}"] = (rows, columns)
        if getattr(block, "upsamplers", None):
            # Back to the grid of the skip connection.
            rows, columns = max(stride for stride in below if stride < (rows, columns))
    return strides


def _check_processor(path: str, processor: object) -> None:
    """Raise unless a processor calls torch's kernel."""
    backend = getattr(processor, "_attention_backend", None)
    if isinstance(processor, OTHER_KERNELS) or (backend is not None and "native" not in str(backend).lower()):
        by, call = type(processor).__name__, "pipe.disable_xformers_memory_efficient_attention()"
        if backend is not None:
            by, call = f"the backend {backend}", 'set_attention_backend("native") of its denoiser'
        raise CaptureError(
            f"{path} is run by {by}, whose kernel does not expose attention probabilities. Call {call} first."
        )


def _located(
    path: str, attention: Attention, modules: dict[str, nn.Module]
) -> tuple[str, str, Attention, Transformer2DModel]:
    """Return name, path, module and transformer of a layer that can be observed faithfully."""
    _check_processor(path, attention.processor)
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:end])
        transformer = modules[parent]
        if isinstance(transformer, Transformer2DModel):
            name = parent
            if len(transformer.transformer_blocks) > 1:
                name = ".".join(parts[: end + 2])
            return name, path, attention, transformer
    raise CaptureError(
        f"{path} is not inside a Transformer2DModel, so the rows and columns of its positions are not known. "
        "This type of block is not supported."
    )


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module is compiled as a whole, by ``module.compile()``, or through its ``forward``."""
    own_forward = vars(module).get("forward")
    return (
        isinstance(module, torch._dynamo.OptimizedModule)
        or module._compiled_call_impl is not None
        or hasattr(own_forward, "_torchdynamo_orig_callable")
    )


def refuse_rewritten(unet: nn.Module) -> None:
    """Raise if a module is compiled, merges tokens, or skips attention.

    Raises
    ------
    CaptureError
        With the module and what to do.
    """
    for path, module in unet.named_modules():
        where = path or type(unet).__name__
        if _is_compiled(module):
            raise CaptureError(
                f"{where} is compiled with torch.compile, which recompiles or skips traced code. "
                "Trace a pipeline that is not compiled: load it again."
            )
        if hasattr(module, "_tome_info") or type(module).__name__ == "ToMeBlock":
            raise CaptureError(
                f"{where} is patched by token merging, which merges positions before the attention, so its maps "
                "do not fit the grid. Call tomesd.remove_patch(pipe) first."
            )
        if cache := _cache_of(module):
            raise CaptureError(
                f"{where} is under a cache of features ({cache}), which skips attention at some steps, so a mean "
                "over steps would be wrong. Turn the cache off first."
            )


def _cache_of(module: nn.Module) -> str | None:
    """Name the feature cache on a module (a hook of diffusers, or DeepCache's ``forward``), or return None."""
    hooks: dict[str, object] = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    for name in hooks:
        if any(word in name for word in ("cache", "broadcast", "fbc", "skip")):
            return name
    forward = vars(module).get("forward")
    return "DeepCache" if str(getattr(forward, "__module__", "")).startswith("DeepCache") else None
