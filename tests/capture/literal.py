"""A literal oracle of a U-Net's cross-attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention


class _LiteralProcessor:
    """Attention written out with explicit loops over rows and heads, which keeps every probability."""

    def __init__(self, store: list[torch.Tensor]) -> None:
        self.store = store

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        q, k, v = (
            attn.to_q(hidden_states),
            attn.to_k(encoder_hidden_states),
            attn.to_v(encoder_hidden_states),
        )
        width = q.shape[-1] // attn.heads
        probabilities = torch.empty(len(q), attn.heads, q.shape[1], k.shape[1])
        output = torch.empty_like(q)
        for row in range(len(q)):
            for head in range(attn.heads):
                part = slice(head * width, (head + 1) * width)
                scores = q[row, :, part] @ k[row, :, part].T / width**0.5
                exponentials = torch.exp(scores - scores.amax(dim=1, keepdim=True))
                probabilities[row, head] = exponentials / exponentials.sum(dim=1, keepdim=True)
                output[row, :, part] = probabilities[row, head] @ v[row, :, part]
        self.store.append(probabilities)
        return attn.to_out[0](output)


@contextmanager
def literal_attention(unet) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Every probability of every cross-attention layer, by module path: (rows, heads, positions, keys)."""
    seen: dict[str, list[torch.Tensor]] = {}
    before = {}
    for path, module in unet.named_modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            before[module] = module.processor
            module.processor = _LiteralProcessor(seen.setdefault(path, []))
    try:
        yield seen
    finally:
        for module, processor in before.items():
            module.processor = processor
