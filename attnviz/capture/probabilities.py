"""Attention probabilities from queries and keys, beside the model's own arithmetic."""

from __future__ import annotations

import torch

from attnviz.capture.layers import AttentionLayer

# Several heads are worked on at once as long as their scores stay this small: on a CPU about the size
# of its cache, elsewhere large enough that launching kernels does not dominate.
_CHUNK_BYTES = {"cpu": 2 << 20}
_CHUNK_BYTES_ELSEWHERE = 64 << 20


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
    """Softmax over all keys of ``query key^T x scale + bias``; the columns of some keys.

    Computed in float32 whatever the model's precision, a few heads at a time, so that at most one
    chunk of scores exists.

    Parameters
    ----------
    query : torch.Tensor, shape (rows, n, heads x width) or (rows, heads, n, width)
        Queries; ``rows`` are the images looked at.
    key : torch.Tensor, shape (rows, keys, heads x width) or (rows, heads, keys, width)
        Keys.
    heads : int
        Number of heads.
    scale : float
        Factor on the scores.
    positions : torch.Tensor of int64 or slice
        Keys whose probabilities are returned. The softmax runs over all keys all the same.
    keep_heads : bool
        Whether heads are kept apart or averaged.
    bias : torch.Tensor, shape (rows or 1, heads or 1, n or 1, keys), optional
        Added to the scaled scores (an attention mask).

    Returns
    -------
    torch.Tensor, float32, shape (rows, n, len(positions)), or (rows, heads, n, len(positions))
        Probabilities in [0, 1].
    """
    query, key = _by_head(query, heads), _by_head(key, heads)
    rows, _, n, _ = query.shape
    keys = key.shape[2]
    chunk = _heads_at_once(rows * n * keys * 4, query.device.type)
    parts: list[torch.Tensor] = []
    total: torch.Tensor | None = None
    for first in range(0, heads, chunk):
        some = slice(first, first + chunk)
        scores = query[:, some].float() @ (key[:, some].float() * scale).transpose(-1, -2)
        if bias is not None:
            scores += bias if bias.shape[1] == 1 else bias[:, some]
        chosen = scores.softmax(dim=-1)[..., positions]
        if keep_heads:
            parts.append(chosen.clone())
            continue
        summed = chosen.sum(dim=1)
        total = summed if total is None else total.add_(summed)
    if total is None:
        return torch.cat(parts, dim=1)
    return total.div_(heads)


def normalised(layer: AttentionLayer, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys after the layer's own normalisation, which works per head, where it has one."""
    attention = layer.attention
    if attention.norm_q is None and attention.norm_k is None:
        return query, key
    query, key = (tensor.unflatten(2, (layer.heads, -1)).transpose(1, 2) for tensor in (query, key))
    with torch.no_grad():
        query = query if attention.norm_q is None else attention.norm_q(query)
        key = key if attention.norm_k is None else attention.norm_k(key)
    return query, key


def _by_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    if tensor.ndim == 4:
        return tensor
    rows, length, inner = tensor.shape
    return tensor.view(rows, length, heads, inner // heads).transpose(1, 2)


def _heads_at_once(bytes_of_one_head: int, device: str) -> int:
    return max(1, _CHUNK_BYTES.get(device, _CHUNK_BYTES_ELSEWHERE) // bytes_of_one_head)
