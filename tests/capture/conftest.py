"""A tiny U-Net of the Stable Diffusion 1.x anatomy."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from attnviz.testing.models import make_unet

KEYS, WIDTH = 11, 24


@pytest.fixture
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_unet(WIDTH)


@pytest.fixture
def embeds():
    return torch.randn(3, KEYS, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def small_unet():
    """Three cross-attention modules, as few as there can be: for what is repeated very often."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            block_out_channels=[4, 8],
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
            mid_block_type=None,
            up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
            layers_per_block=1,
            norm_num_groups=2,
            attention_head_dim=2,
            cross_attention_dim=WIDTH,
            sample_size=8,
        ).eval()
