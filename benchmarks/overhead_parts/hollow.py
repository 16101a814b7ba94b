"""A hollow denoiser, which runs its forward pass, but in which only the modules that attend to text compute."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.stable_audio_transformer import StableAudioDiTBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

from overhead_parts.models import Subject

_CHANNELS = 1


@contextmanager
def hollowed(denoiser: nn.Module, sites: str, *, text_attention: bool = True) -> Iterator[None]:
    """Replace expensive modules of a denoiser by stand-ins that preserve the shapes, within the context.

    Residual blocks keep or repeat channels, down- and upsampling stride or repeat pixels, self-attention and
    feed-forward layers add nothing, and the projections and norms around them are the identity. Classes, module
    names and hooks are kept, because only ``forward`` of single modules is replaced. The modules that attend to
    text thus receive hidden states of their true size through the same path as in a generation, and everything
    that a tool installs on the pipeline, the denoiser, a transformer or an attention module runs.

    Parameters
    ----------
    denoiser : torch.nn.Module
        A denoiser of diffusers made of U-Net blocks, or of Stable Audio's transformer blocks.
    sites : str
        Regular expression of the names of the modules that attend to text.
    text_attention : bool
        If False, these are emptied as well, which leaves the cost of the harness.
    """
    replaced: list[nn.Module] = []
    kept = re.compile(sites)

    def replace(module: nn.Module, forward: Callable[..., Tensor]) -> None:
        module.forward = forward
        replaced.append(module)

    try:
        for name, module in denoiser.named_modules():
            if isinstance(module, ResnetBlock2D):
                replace(module, _channels_to(module.out_channels))
            elif isinstance(module, Downsample2D):
                replace(module, _every_second)
            elif isinstance(module, Upsample2D):
                replace(module, _twice)
            elif isinstance(module, Transformer2DModel):
                for part in (module.norm, module.proj_in, module.proj_out):
                    replace(part, _same)
            elif isinstance(module, (BasicTransformerBlock, StableAudioDiTBlock)):
                for part in (module.norm1, module.norm3):
                    replace(part, _same)
                for part in (module.attn1, module.ff):
                    replace(part, _nothing)
                if not (text_attention and kept.fullmatch(f"{name}.attn2")):
                    replace(module.attn2, _nothing)
                    replace(module.norm2, _same)
        yield
    finally:
        for module in replaced:
            del module.forward


def _channels_to(channels: int) -> Callable[..., Tensor]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        if x.shape[_CHANNELS] < channels:
            x = torch.cat([x] * -(-channels // x.shape[_CHANNELS]), dim=_CHANNELS)
        return x[:, :channels]

    return forward


def _every_second(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x[:, :, ::2, ::2]


def _twice(x: Tensor, output_size: Any = None, *_: Any, **__: Any) -> Tensor:
    size = output_size or (2 * x.shape[2], 2 * x.shape[3])
    return functional.interpolate(x, size=size, mode="nearest")


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _nothing(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.new_zeros(())  # broadcasts in the residual addition


def true_grids(denoiser: nn.Module, subject: Subject, run: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """Return the grid of each module that attends to text during `run`, frequency before time.

    It is read from the 4-D input of the transformer that holds the module or, of a sequence in time, from the
    latents of the denoiser.
    """
    kept = re.compile(subject.sites)
    transformers = {name: m for name, m in denoiser.named_modules() if isinstance(m, Transformer2DModel)}
    watched = {
        layer_name(name): transformers.get(layer_name(name), denoiser)
        for name, _ in denoiser.named_modules()
        if kept.fullmatch(name)
    }
    grids: dict[str, tuple[int, ...]] = {}

    def note(layer: str, sample: Tensor) -> None:
        axes = tuple(sample.shape[2:])
        grids[layer] = axes[::-1] if subject.time_rows else axes

    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, named, layer=layer: note(layer, inputs[0] if inputs else named["hidden_states"]),
            with_kwargs=True,
        )
        for layer, module in watched.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return grids


def layer_name(path: str) -> str:
    """Return the name of the transformer (in a U-Net) or block that holds an attention module."""
    # "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2" -> "down_blocks.0.attentions.1"
    return path.removeprefix("unet.").split(".transformer_blocks.")[0].removesuffix(".attn2")
