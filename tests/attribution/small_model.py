"""A pipeline whose U-Net attends at coarse levels only: the tiny checkpoints' time goes into their finest one."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

import attnviz
from attnviz.testing.models import UNET_CONFIG

SMALL = {
    **UNET_CONFIG,
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}


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
