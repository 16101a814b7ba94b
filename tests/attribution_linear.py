"""A denoiser that is linear in its text embeddings: every attribution of its energy has a closed form."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from attnviz.attribution.texts import Texts
from attnviz.testing import example_maps

KEYS, WIDTH, CELLS = 16, 3, (2, 5)


class Linear(torch.nn.Module):
    """Predicts samples plus a fixed linear map of the embeddings, or a smooth function of it."""

    dtype = torch.float32

    def __init__(self, bend=None, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(KEYS, WIDTH, 4, *CELLS, generator=generator)
        self.bend = bend
        self.rows = []

    def forward(self, samples, timestep, encoder_hidden_states, return_dict):
        self.rows.append(len(samples))
        added = torch.einsum("rkw,kwcij->rcij", encoder_hidden_states, self.weight)
        return (samples + (added if self.bend is None else self.bend(added)),)


def linear_texts(bend=None):
    """Return texts of a linear denoiser, with the six words of `example_maps` and 16 keys."""
    generator = torch.Generator().manual_seed(1)
    tokens = example_maps().tokens[0]
    caption, null = torch.randn(2, 1, KEYS, WIDTH, generator=generator)
    pipe = SimpleNamespace(unet=Linear(bend), conditioner=None, vae_scale_factor=8)
    return Texts(pipe, tokens, caption, null)


def samples(draws=2):
    return torch.randn(draws, 4, *CELLS, generator=torch.Generator().manual_seed(2))
