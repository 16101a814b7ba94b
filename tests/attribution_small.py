"""A pipeline whose U-Net attends at coarse levels only: the tiny checkpoints' time goes into their finest one."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import UNet2DConditionModel

import attnviz
from attnviz.testing.models import UNET_CONFIG
from attnviz.tracing.trace import provenance

SMALL = {
    **UNET_CONFIG,
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}


TINY = {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": None,
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 24,
}


COARSE = {
    **TINY,
    "block_out_channels": [4, 4, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
}
"""Attention on 8 x 32 cells only: for what takes many calls."""


def small_pipeline(checkpoint):
    """Load a checkpoint, and give it a U-Net of 7 cross-attention layers on 16 x 64 and 8 x 32 cells."""
    pipe = attnviz.load(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel(**SMALL, cross_attention_dim=24).eval()
    for name, parameter in pipe.unet.named_parameters():
        if name.endswith("attn2.to_q.weight"):
            parameter.data *= 6.0  # peaked attention, or mistakes do not show
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_pipeline(checkpoint, config=TINY):
    """Load a checkpoint, and give it a U-Net of 3 cross-attention layers on 16 x 64 cells."""
    pipe = attnviz.load(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel(**config).eval()
    for name, parameter in pipe.unet.named_parameters():
        if "attn2.to_q" in name:
            parameter.data *= 6.0  # peaked attention, or mistakes do not show
        if "attn2.to_out.0.weight" in name:
            parameter.data *= 4.0  # words that matter
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise_bursts(seconds=3.0, rate=16_000, seed=0):
    """Quiet noise with a loud second in it: nothing symmetric."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32) * 0.01
    samples[rate // 2 : rate] *= 20
    return samples


def state_of(pipe):
    """Everything that explain might leave changed."""
    modules = list(pipe.unet.modules())
    return (
        provenance.digest(torch.cat([parameter.flatten() for parameter in pipe.unet.parameters()])),
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        [module.training for module in modules],
        [parameter.requires_grad for parameter in pipe.unet.parameters()],
        {name: id(processor) for name, processor in pipe.unet.attn_processors.items()},
        sorted(vars(pipe)),
        {name: id(value) for name, value in vars(pipe.scheduler).items()},
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 (the global state is what is looked at)
    )
