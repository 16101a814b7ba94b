"""A tiny U-Net of the Stable Diffusion 1.x anatomy."""

from __future__ import annotations

import pytest
import torch

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
