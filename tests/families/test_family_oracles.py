"""Independent oracles: the attention of each published model, restated from its source, beside a trace's maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import attnviz

PROMPT = "a dog barks, then rain falls"


def by_head(x, heads):
    """(rows, positions, heads x width) to (rows, heads, positions, width)."""
    rows, positions, _ = x.shape
    return x.reshape(rows, positions, heads, -1).permute(0, 2, 1, 3)


def softmax_of(query, key, mask=None):
    scores = torch.einsum("rhqw,rhkw->rhqk", query.double(), key.double()) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return scores.softmax(-1)


def rms(x, weight, eps=1e-6):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def turned(x, base):
    """Rotary positions of halves, over all of a head's width: each pair (i, i + width/2) is one complex number."""
    positions, width = x.shape[2], x.shape[3]
    angle = torch.arange(positions)[:, None] * base ** (-torch.arange(0, width, 2).double() / width)
    pairs = torch.complex(*(half.double() for half in x.chunk(2, dim=-1))) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([pairs.real, pairs.imag], dim=-1)


def audioldm2(module, x, context, mask):
    return softmax_of(by_head(module.to_q(x), 4), by_head(module.to_k(context), 4), mask)


def stable_audio(module, x, context, mask):
    """4 heads on 2 key heads, each of which serves two neighbours; padding is not masked."""
    key = by_head(module.to_k(context), 2)
    return softmax_of(by_head(module.to_q(x), 4), torch.stack([key[:, i // 2] for i in range(4)], dim=1))


def stable_audio_3(module, x, context, mask):
    """The difference of two softmaxes; queries and keys are normalised in each head."""
    ways = []
    for i in range(2):
        width = module.to_q.out_features // 2
        query = functional.linear(x, module.to_q.weight[i * width : (i + 1) * width])
        key = functional.linear(context, module.to_kv.weight[i * width : (i + 1) * width])
        query = rms(by_head(query, module.heads), module.q_norm.gamma)
        ways.append(softmax_of(query, rms(by_head(key, module.heads), module.k_norm.gamma)))
    return ways[0] - ways[1]


def longcat(module, x, context, mask):
    """Queries and keys are normalised over all heads, then turned by their own positions."""
    query, key = module.to_q(x), module.to_k(context)
    if module.qk_norm:
        query, key = rms(query, module.q_norm.weight), rms(key, module.k_norm.weight)
    return softmax_of(turned(by_head(query, 4), 1e5), turned(by_head(key, 4), 1e5), mask)


def ace_step(module, x, context, mask):
    query = rms(by_head(module.to_q(x), 4), module.norm_q.weight)
    key = rms(by_head(module.to_k(context), 2), module.norm_k.weight)
    return softmax_of(query, torch.stack([key[:, i // 2] for i in range(4)], dim=1))


# Of each model: its formula; the end of its sites' paths; the query of column 0; the conditional row.
ORACLES = {
    "audioldm2": (audioldm2, "attn2", 0, 1),
    "stable-audio": (stable_audio, "attn2", 1, 1),
    "stable-audio-3": (stable_audio_3, "cross_attn", 3, 1),
    "longcat-audio-dit": (longcat, "cross_attn", 0, 0),
    "ace-step": (ace_step, "cross_attn", 0, 0),
}


@pytest.mark.parametrize("name", ORACLES)
def test_maps_equal_the_published_formula(family_pipe, name):
    made = family_pipe(name)
    formula, suffix, first, conditional = ORACLES[name]
    seen = {}

    def see(path):
        def hook(module, args, kwargs):
            x = args[0] if args else kwargs["hidden_states"]
            context = next(kwargs[key] for key in ("encoder_hidden_states", "context") if key in kwargs)
            mask = kwargs.get("attention_mask")
            seen.setdefault(path, []).append((module, x.detach(), context, mask))

        return hook

    handles = [
        module.register_forward_pre_hook(see(path), with_kwargs=True)
        for path, module in made.denoiser.named_modules()
        if path.endswith(f".{suffix}")
    ]
    try:
        with attnviz.trace(made.pipe, keep=("step", "head"), tokens="all") as trace:
            made(PROMPT)
    finally:
        for handle in handles:
            handle.remove()
    maps = trace.maps
    for layer in maps.layers:
        path = next(path for path in seen if path.startswith(f"{layer}."))
        calls = (
            seen[path][::2] if name == "longcat-audio-dit" else seen[path]
        )  # every second call is unconditional
        attention = maps[layer].isel(prompt=0, image=0)
        assert len(calls) == attention.sizes["step"] == 2
        for step, (module, x, context, masks) in enumerate(calls):
            row = slice(conditional, conditional + 1)
            mask = None if masks is None else masks[row].reshape(1, -1)
            if mask is not None and mask.is_floating_point():  # added to the scores
                mask = mask > -1
            with torch.no_grad():
                expected = formula(module, x[row], context[row], mask)[0].permute(0, 2, 1)[..., first:].numpy()
            ours = attention.isel(step=step)
            if "freq" in ours.dims:  # its positions are time first, the lowest band first
                ours = ours.transpose("head", "token", "time", "freq")
                ours = ours.to_numpy().reshape(*ours.shape[:2], -1)
            np.testing.assert_allclose(np.asarray(ours), expected, rtol=2e-4, atol=2e-6)
