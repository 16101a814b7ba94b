"""A literal oracle of prompt-to-prompt: attention written out, replaced as the paper writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention

Change = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Denoiser call, and probabilities (heads, positions, keys) of source and target: those the target is to have."""


class _LiteralProcessor:
    def __init__(self, change: Change, call: list[int], guided: bool) -> None:
        self.change, self.call, self.guided = change, call, guided

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            part.unflatten(2, (attn.heads, -1)).transpose(1, 2).double()
            for part in (attn.to_q(hidden_states), attn.to_k(keys), attn.to_v(keys))
        )
        probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        source, target = (2, 3) if self.guided else (0, 1)
        probabilities[target] = self.change(self.call[0], probabilities[source], probabilities[target])
        output = (probabilities @ v).transpose(1, 2).flatten(2).to(hidden_states.dtype)
        return attn.to_out[0](output)


@contextmanager
def literal_edit(unet, cross: Change, own: Change, *, guided: bool) -> Iterator[None]:
    """Run a batch of source and target under the oracle: `cross` in cross-attention, `own` in self-attention."""
    before = dict(unet.attn_processors)
    call = [-1]

    def count(module, args):
        call[0] += 1

    handle = unet.register_forward_pre_hook(count)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.processor = _LiteralProcessor(cross if module.is_cross_attention else own, call, guided)
    try:
        yield
    finally:
        handle.remove()
        unet.set_attn_processor(before)
