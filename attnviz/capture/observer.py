"""One cross-attention layer, observed: its queries, its keys and the grid they lie on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from attnviz.capture.layers import CrossAttentionLayer, check_processor
from attnviz.errors import CaptureError


@dataclass(frozen=True)
class Observation:
    """What one layer did in one forward pass.

    Attributes
    ----------
    query : torch.Tensor, shape (rows, n, heads x width)
        Output of ``to_q``.
    key : torch.Tensor, shape (rows, keys, heads x width)
        Output of ``to_k``.
    mask : torch.Tensor or None
        The attention mask the layer was called with.
    grid : tuple of int
        Rows and columns of the block's 4-D input; their product is n.
    """

    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor | None
    grid: tuple[int, int]


class LayerObserver:
    """Forward hooks on one layer, its ``to_q`` and ``to_k``, and the transformer block around it.

    The processor stays untouched, so the layer's output is the same to the last bit; what ``to_q``
    returns holds whatever LoRA adds to it.

    Parameters
    ----------
    layer : CrossAttentionLayer
        The layer.
    receive : callable
        Called with the layer and its `Observation` at the end of each of its forward passes.
    """

    def __init__(
        self, layer: CrossAttentionLayer, receive: Callable[[CrossAttentionLayer, Observation], None]
    ) -> None:
        self.layer = layer
        self._receive = receive
        self._to_q: nn.Module = layer.attention.to_q
        self._to_k: nn.Module = layer.attention.to_k
        self._query: torch.Tensor | None = None
        self._key: torch.Tensor | None = None
        self._grid: tuple[int, int] | None = None

    def install(self) -> Iterator[RemovableHandle]:
        """Put the hooks in one after another, giving for each the handle that takes it out."""
        yield self.layer.transformer.register_forward_pre_hook(self._before_transformer, with_kwargs=True)
        yield self._to_q.register_forward_hook(self._after_to_q)
        yield self._to_k.register_forward_hook(self._after_to_k)
        yield self.layer.attention.register_forward_hook(self._after_attention, with_kwargs=True)

    def _before_transformer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden_states = args[0] if args else kwargs["hidden_states"]
        self._grid = (int(hidden_states.shape[-2]), int(hidden_states.shape[-1]))

    def _after_to_q(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        self._query = output

    def _after_to_k(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        self._key = output

    def _after_attention(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
    ) -> None:
        query, key, self._query, self._key = self._query, self._key, None, None
        path, attention = self.layer.path, self.layer.attention
        check_processor(path, attention)
        if attention.to_q is not self._to_q or attention.to_k is not self._to_k:
            raise CaptureError(
                f"to_q or to_k of {path} was replaced after trace() began (loading or unloading a LoRA does "
                "that). Load adapters first, then trace."
            )
        if query is None or key is None:
            raise CaptureError(
                f"{path} ran without a query and a key of its own. Is the pipeline called from two threads?"
            )
        if self._grid is None or self._grid[0] * self._grid[1] != query.shape[1]:
            raise CaptureError(
                f"{path} attends from {query.shape[1]} positions, and its block's input has the grid "
                f"{self._grid}: positions were merged or dropped, so they do not lie on the spectrogram."
            )
        mask = kwargs["attention_mask"] if "attention_mask" in kwargs else (args[2:3] or (None,))[0]
        self._receive(self.layer, Observation(query.detach(), key.detach(), mask, self._grid))
