"""Compute attention probabilities from queries and keys, separately from the model's own arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch

# Heads are processed together while their scores stay this small: about the cache size of a CPU; elsewhere large
# enough that kernel launches do not dominate.
_CHUNK_BYTES = {"cpu": 2 << 20}
_CHUNK_BYTES_ELSEWHERE = 64 << 20

HeadChunk = tuple[slice, torch.Tensor]
"""A slice of heads, and their probabilities over all keys: float32, shape (rows, heads, n, keys)."""


def attention_probabilities(
    query: torch.Tensor,
    key: torch.Tensor,
    *,
    heads: int,
    scale: float,
    positions: torch.Tensor | slice,
    keep_heads: bool,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the softmax of ``query key^T x scale + bias`` over all keys; return it for some keys.

    Computed in float32 at every precision of the model, a few heads at a time, so that only one chunk of scores
    is in memory.

    Parameters
    ----------
    query : torch.Tensor, shape (rows, n, heads x width) or (rows, heads, n, width)
        Queries of ``rows`` images.
    key : torch.Tensor, shape (rows, keys, heads x width) or (rows, heads, keys, width)
        Keys.
    heads : int
        Number of heads.
    scale : float
        Factor on the scores.
    positions : torch.Tensor of int64 or slice
        Keys whose probabilities are returned. The softmax always runs over all keys.
    keep_heads : bool
        Whether to keep heads apart or to average over them.
    bias : torch.Tensor, shape (rows or 1, heads or 1, n or 1, keys), optional
        Added to the scaled scores (an attention mask).

    Returns
    -------
    torch.Tensor, float32, shape (rows, n, len(positions)), or (rows, heads, n, len(positions))
        Probabilities in [0, 1].
    """
    with float32_arithmetic(query.device.type):
        chunks = head_chunks(_by_head(query, heads), _by_head(key, heads), scale=scale, bias=bias)
        return reduced(chunks, positions=positions, keep_heads=keep_heads)


def float32_arithmetic(device: str) -> AbstractContextManager[None]:
    """Disable a caller's autocast inside the block."""
    # Entering torch.autocast costs as much as a small operation, in every module of every call.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def head_chunks(
    query: torch.Tensor, key: torch.Tensor, *, scale: float, bias: torch.Tensor | None
) -> Iterator[HeadChunk]:
    """Yield the probabilities of a few heads at a time, so that only one chunk of scores is in memory.

    Parameters
    ----------
    query : torch.Tensor, shape (rows, heads, n, width)
    key : torch.Tensor, shape (rows, heads, keys, width)
    scale : float
    bias : torch.Tensor, shape (rows or 1, heads or 1, n or 1, keys), or None
        Minus infinity masks a key out. Where all keys are masked out, the probabilities are 0.
    """
    rows, heads, n, _ = query.shape
    chunk = _heads_at_once(rows * n * key.shape[2] * 4, query.device.type)
    bias = None if bias is None or _is_zero(bias) else bias
    nowhere = None if bias is None else torch.isneginf(bias).all(dim=-1, keepdim=True)
    for first in range(0, heads, chunk):
        some = slice(first, min(first + chunk, heads))
        scores = query[:, some].float() @ (key[:, some].float() * scale).transpose(-1, -2)
        if bias is None or nowhere is None:
            yield some, scores.softmax(dim=-1)
            continue
        by_head = bias.shape[1] > 1
        scores += bias[:, some] if by_head else bias
        yield some, scores.softmax(dim=-1).masked_fill_(nowhere[:, some] if by_head else nowhere, 0.0)


def reduced(chunks: Iterable[HeadChunk], *, positions: torch.Tensor | slice, keep_heads: bool) -> torch.Tensor:
    """Concatenate chunks of heads or average over heads, and keep some keys."""
    parts: list[torch.Tensor] = []
    total: torch.Tensor | None = None
    heads = 0
    for some, probabilities in chunks:
        heads = some.stop
        chosen = probabilities[..., positions]
        if keep_heads:
            parts.append(chosen.clone())
            continue
        summed = chosen.sum(dim=1)
        total = summed if total is None else total.add_(summed)
    if total is None:
        return torch.cat(parts, dim=1)
    return total.div_(heads)


def _by_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    if tensor.ndim == 4:
        return tensor
    rows, length, inner = tensor.shape
    return tensor.view(rows, length, heads, inner // heads).transpose(1, 2)


def _is_zero(bias: torch.Tensor) -> bool:
    """Whether a bias, on the CPU, adds nothing, as a mask over a prompt without padding does.

    Elsewhere the answer would make the host wait for the device, which costs more than the addition.
    """
    return bias.device.type == "cpu" and not bool(bias.any())


def _heads_at_once(bytes_of_one_head: int, device: str) -> int:
    return max(1, _CHUNK_BYTES.get(device, _CHUNK_BYTES_ELSEWHERE) // bytes_of_one_head)
