"""A hollow U-Net, which runs its forward pass, but in which only the cross-attention modules compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

_CHANNELS = 1


@contextmanager
def hollowed(unet: nn.Module, *, cross_attention: bool = True) -> Iterator[None]:
    """Replace expensive modules of a U-Net by stand-ins that preserve the shapes, within the context.

    Residual blocks keep or repeat channels, down- and upsampling stride or repeat pixels, self-attention and
    feed-forward layers add nothing, and the projections and norms around them are the identity. Classes, module
    names and hooks are kept, because only ``forward`` of single modules is replaced. The 16 ``attn2`` modules thus
    receive hidden states of their true size through the same path as in a generation, and everything that a tool
    installs on the pipeline, the U-Net, a transformer or an attention module runs.

    Parameters
    ----------
    unet : torch.nn.Module
        A diffusers ``UNet2DConditionModel`` of the Stable Diffusion 1.x kind.
    cross_attention : bool
        If False, ``attn2`` is emptied as well, which leaves the cost of the harness.
    """
    replaced: list[nn.Module] = []

    def replace(module: nn.Module, forward: Callable[..., Tensor]) -> None:
        module.forward = forward
        replaced.append(module)

    try:
        for module in unet.modules():
            if isinstance(module, ResnetBlock2D):
                replace(module, _channels_to(module.out_channels))
            elif isinstance(module, Downsample2D):
                replace(module, _every_second)
            elif isinstance(module, Upsample2D):
                replace(module, _twice)
            elif isinstance(module, Transformer2DModel):
                for part in (module.norm, module.proj_in, module.proj_out):
                    replace(part, _same)
            elif isinstance(module, BasicTransformerBlock):
                for part in (module.norm1, module.norm3):  # norm2 is the input of attn2 and is kept
                    replace(part, _same)
                for part in (module.attn1, module.ff):
                    replace(part, _nothing)
                if not cross_attention:
                    replace(module.attn2, _nothing)
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


def true_grids(unet: nn.Module, run: Callable[[], object]) -> dict[str, tuple[int, int]]:
    """Return the rows and columns of the 4-D input of each transformer of `unet` during `run`."""
    grids: dict[str, tuple[int, int]] = {}
    names = {id(module): name for name, module in unet.named_modules()}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        grids[names[id(module)]] = (int(inputs[0].shape[-2]), int(inputs[0].shape[-1]))

    handles = [m.register_forward_pre_hook(note) for m in unet.modules() if isinstance(m, Transformer2DModel)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return grids
