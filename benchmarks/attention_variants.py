"""Time of several ways to compute attention probabilities next to fused attention, on Auffusion's tensor sizes.

attnviz uses ``per_head``; the others are alternatives. Runs alternate, and medians and minima over rounds are
reported, for the number of threads that torch uses::

    python benchmarks/attention_variants.py --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from attnviz.capture import attention_probabilities

HEADS, KEYS, TOKENS = 8, 77, 9
LAYERS = [(4096, 40)] * 5 + [(1024, 80)] * 5 + [(256, 160)] * 5 + [(64, 160)]
"""Positions and width of a head of the 16 cross-attention layers at 32 x 128 latents, Stable Diffusion 1.5."""

Variant = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def per_head(query: torch.Tensor, key: torch.Tensor, width: int) -> torch.Tensor:
    """Compute the scores of one head at a time if they exceed the cache; softmax along the keys."""
    settings = {"heads": HEADS, "scale": width**-0.5, "positions": slice(TOKENS), "keep_heads": False}
    return attention_probabilities(query, key, **settings)[0]


def all_heads(query: torch.Tensor, key: torch.Tensor, width: int) -> torch.Tensor:
    """Compute the scores of all heads at once: 10 MiB at 32 x 128."""
    q, k = (tensor.view(-1, HEADS, width).transpose(0, 1) for tensor in (query, key))
    return torch.softmax(q @ (k * width**-0.5).transpose(1, 2), dim=-1)[..., :TOKENS].mean(0)


def keys_first(query: torch.Tensor, key: torch.Tensor, width: int) -> torch.Tensor:
    """Compute transposed scores, so that the softmax runs over rows and the kept tokens are contiguous."""
    q, k = (tensor.view(-1, HEADS, width).transpose(0, 1) for tensor in (query, key))
    heads = (torch.softmax(k[h] * width**-0.5 @ q[h].T, dim=0)[:TOKENS] for h in range(HEADS))
    return sum(heads, start=torch.zeros(TOKENS, len(query[0]))).T / HEADS


def fused_with_selector(query: torch.Tensor, key: torch.Tensor, width: int) -> torch.Tensor:
    """Use fused attention with one-hot values, so that the output is the probabilities."""
    q, k = (tensor.view(1, -1, HEADS, width).transpose(1, 2) for tensor in (query, key))
    selector = torch.zeros(1, 1, KEYS, width)
    selector[0, 0, :TOKENS, :TOKENS] = torch.eye(TOKENS)
    return F.scaled_dot_product_attention(q, k, selector.expand(1, HEADS, -1, -1)).mean(1)[0, :, :TOKENS]


def store_only(query: torch.Tensor, key: torch.Tensor, width: int) -> torch.Tensor:
    """Only copy the queries of both branches, as in a tool that computes its maps afterwards."""
    return torch.cat([query, query]).clone()[0, :, :TOKENS]


VARIANTS: list[Variant] = [per_head, all_heads, keys_first, fused_with_selector, store_only]


def main() -> None:
    """Time every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    data = [(torch.randn(1, n, HEADS * d), torch.randn(1, KEYS, HEADS * d), d) for n, d in LAYERS]
    for variant in VARIANTS[:-1]:
        for sizes in data:
            torch.testing.assert_close(variant(*sizes), per_head(*sizes), atol=1e-6, rtol=1e-4)
    times: dict[str, list[float]] = {variant.__name__: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant in VARIANTS:
            start = time.perf_counter()
            for sizes in data:
                variant(*sizes)
            times[variant.__name__].append(1000 * (time.perf_counter() - start))
    print(f"{'milliseconds for 16 layers':28} median minimum   (threads: {torch.get_num_threads()})")
    for name, values in times.items():
        print(f"{name:28} {statistics.median(values):6.1f} {min(values):7.1f}")


if __name__ == "__main__":
    main()
