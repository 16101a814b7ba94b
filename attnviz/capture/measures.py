"""What is recorded of each attention module: its probabilities, what they add, or their rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from attnviz.capture.layers import AttentionLayer, remedy
from attnviz.capture.probabilities import head_chunks, reduced
from attnviz.capture.site import SeenAttention
from attnviz.errors import CaptureError

MeasureName = Literal["attention", "value", "rollout"]
Positions = torch.Tensor | slice


@dataclass(frozen=True)
class Block:
    """One forward pass of a module, and of the self-attention of its block.

    Attributes
    ----------
    layer : AttentionLayer
    seen : SeenAttention
        Attention to the text.
    own : SeenAttention or None
        Self-attention of the block, if it is observed.
    """

    layer: AttentionLayer
    seen: SeenAttention
    own: SeenAttention | None = None


@dataclass(frozen=True)
class Measure:
    """What is recorded of each module.

    Attributes
    ----------
    name : str
    quantity : str
        Name of the values.
    compute : callable
        Maps a block, the rows of the batch, the kept keys, and whether heads are kept, to values of the shape
        (rows, [heads], n, keys), float32.
    self_attention : bool
        Whether the self-attention of each block is observed as well.
    """

    name: MeasureName
    quantity: str
    compute: Callable[[Block, slice, Positions, bool], torch.Tensor]
    self_attention: bool = False


def attention(block: Block, rows: slice, positions: Positions, keep_heads: bool) -> torch.Tensor:
    """Return the attention probabilities, averaged over heads unless they are kept."""
    return reduced(block.seen.chunks(rows), positions=positions, keep_heads=keep_heads)


def value_norms(block: Block, rows: slice, positions: Positions, keep_heads: bool) -> torch.Tensor:
    """Return the norm of what each key adds to the output of the module, ``A V W_o``.

    The vectors of all heads are added before the norm is taken, as the module adds them; with `keep_heads`, the
    norm of each head's own vector is returned.

    Raises
    ------
    CaptureError
        If the values or the output projection of the module are not known.

    Notes
    -----
    The norm of a sum over heads needs the inner products of the heads' vectors ``V_h W_h`` alone, which do not
    depend on the query: a matrix of heads x heads for each key.

    References: Kobayashi et al., Attention is Not Only a Weight: Analyzing Transformers with Vector Norms (arXiv
    2004.10102).
    """
    path, seen = block.layer.path, block.seen
    if seen.call.value is None:
        raise CaptureError(
            f"{path} multiplies its probabilities with the values itself (attention slicing, or the classic "
            f"processor), so the values are not seen. {remedy(block.layer)} Or use method='attention'."
        )
    if seen.subtracted is not None:
        raise CaptureError(
            f"{path} attends by the difference of two kernel calls, for which what a word adds is not defined by "
            "one vector. Use method='attention'."
        )
    probabilities = torch.cat([chunk[..., positions] for _, chunk in seen.chunks(rows)], dim=1)
    added = head_outputs(block.layer, seen.call.value[rows][:, :, positions])
    if keep_heads:
        return probabilities * added.norm(dim=-1).transpose(1, 2)[:, :, None]
    products = added @ added.transpose(-1, -2)
    by_key = probabilities.permute(0, 3, 2, 1).contiguous()  # row, key, query, head
    squared = (by_key @ products).mul_(by_key).sum(dim=-1)
    return squared.clamp_(min=0).sqrt_().transpose(1, 2)


def head_outputs(layer: AttentionLayer, value: torch.Tensor) -> torch.Tensor:
    """Return ``V_h W_h`` of each head: values (rows, heads, keys, width) give (rows, keys, heads, model width).

    A projection that is more than a linear layer, such as one with a LoRA, is called as a module.

    Raises
    ------
    CaptureError
        If the module has no output projection of the heads' width.
    """
    project = _projection(layer.attention)
    _, heads, _, width = value.shape
    if project is None or getattr(project, "in_features", None) != heads * width:
        raise CaptureError(
            f"{layer.path} has no output projection of {heads} heads x {width} channels, so what a word adds is "
            "not known. Use method='attention'."
        )
    value = value.to(next(project.parameters()).dtype)
    if type(project) is nn.Linear and not (project._forward_hooks or project._forward_pre_hooks):
        return torch.einsum("rhtd,mhd->rthm", value, project.weight.unflatten(-1, (heads, width))).float()
    apart = torch.eye(heads, device=value.device, dtype=value.dtype)
    spread = (value.transpose(1, 2)[:, :, None] * apart[..., None]).flatten(-2)
    nothing = project(value.new_zeros(1, heads * width))
    return project(spread).float() - nothing.float()


def rollout(block: Block, rows: slice, positions: Positions, keep_heads: bool) -> torch.Tensor:
    """Return the attention of each position, averaged as the block's self-attention mixes positions.

    Raises
    ------
    CaptureError
        If heads are to be kept, or no self-attention of the block, over the same positions, was seen.

    Notes
    -----
    As in attention rollout (Abnar & Zuidema, Quantifying Attention Flow in Transformers, arXiv 2005.00928), the
    self-attention is the mean over heads, and half of it is the identity, for the residual connection. Difference
    from the original: a block is rolled out by itself, because blocks of a U-Net have different grids and
    convolutions between them.
    """
    if keep_heads:
        raise CaptureError("keep=('head',) is not possible with method='rollout', which averages over heads.")
    mean = attention(block, rows, positions, keep_heads=False)
    if block.own is None or block.own.call.query.shape[2] != mean.shape[1]:
        raise CaptureError(
            f"{block.layer.path} has no self-attention over its own positions in the same block, so "
            "method='rollout' is not defined. Use method='attention'."
        )
    return (mean + mixed(block.own, rows, mean)) / 2


def mixed(own: SeenAttention, rows: slice, values: torch.Tensor) -> torch.Tensor:
    """Return values (rows, n, keys) mixed over positions by self-attention, the mean over heads."""
    call = own.call.rows(rows)
    total = torch.zeros_like(values)
    step = max(1, _CHUNK // max(1, call.key.shape[2] * len(values)))
    for first in range(0, call.query.shape[2], step):
        some = slice(first, first + step)
        part = call.columns(some)
        for _, probabilities in head_chunks(part.query, part.key, scale=part.scale, bias=part.bias):
            total[:, some] += probabilities.sum(dim=1) @ values
    return total / call.query.shape[1]


def _projection(attention: Any) -> nn.Module | None:
    out = getattr(attention, "to_out", None)
    if isinstance(out, nn.ModuleList | nn.Sequential) and len(out):
        out = out[0]
    return out if isinstance(out, nn.Module) else getattr(attention, "out_proj", None)


_CHUNK = 1 << 22
"""Probabilities of self-attention in memory at once, for one head."""

MEASURES: dict[str, Measure] = {
    "attention": Measure("attention", "attention probability", attention),
    "value": Measure("value", "norm of what the word adds", value_norms),
    "rollout": Measure(
        "rollout", "attention probability, rolled out over the block", rollout, self_attention=True
    ),
}


def measure_of(name: str) -> Measure:
    """Return a measure by its name.

    Raises
    ------
    CaptureError
        With the known names.
    """
    if name not in MEASURES:
        raise CaptureError(
            f"method={name!r} cannot be recorded along with a generation; what can: {', '.join(MEASURES)}. The "
            "other methods of attnviz.attribution explain a clip: attnviz.explain(..., method=...)."
        )
    return MEASURES[name]
