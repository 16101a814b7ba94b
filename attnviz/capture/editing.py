"""Edited attention: rows of a batch that attend as others of its rows do, key by key.

An edit of attention that is linear in the probabilities needs no attention processor of its own. A row is to
attend with ``sum over shares of P[share.row] @ share.keys``; its output is the sum of ``P[share.row] @ (share.keys
@ values)``. So the first share is the layer's own processor at work, with that row's queries and keys put in
place of the row's, and with other values; what further shares give is added before the output projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from attnviz.capture.conditioning import Branches
from attnviz.capture.layers import AttentionLayer, check_processor
from attnviz.capture.probabilities import attention_probabilities, normalised
from attnviz.errors import CaptureError


@dataclass(frozen=True)
class Share:
    """What one row's attention adds to that of an edited row.

    Attributes
    ----------
    row : int
        The row whose attention probabilities are taken. Where it is not the edited row itself, it is not edited.
    keys : torch.Tensor or None
        None: the probabilities as they are. Shape (keys,): a factor for each key. Shape (keys of `row`, keys of
        the edited row): how much of each key's probability goes to which key.
    """

    row: int
    keys: torch.Tensor | None = None

    def attention(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Probabilities (..., keys) of `row`, as they are added to the edited row's."""
        if self.keys is None:
            return probabilities
        keys = self.keys.to(probabilities)
        return probabilities * keys if keys.ndim == 1 else probabilities @ keys

    def values(self, values: torch.Tensor) -> torch.Tensor:
        """Values (keys, width) of the edited row, as `row`'s probabilities are to weigh them."""
        if self.keys is None:
            return values
        keys = self.keys.to(values)
        return keys[:, None] * values if keys.ndim == 1 else keys @ values


@dataclass(frozen=True)
class EditedRow:
    """A row of the batch and the shares its attention is the sum of, at least one."""

    row: int
    shares: tuple[Share, ...]

    def shifted(self, rows: int) -> EditedRow:
        """The same, counted from so many rows earlier."""
        shares = tuple(replace(share, row=share.row + rows) for share in self.shares)
        return EditedRow(self.row + rows, shares)


class AttentionEdit(Protocol):
    """What is edited at each denoiser call. Rows are counted within the conditional half of the batch."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What the provenance of the maps says of it; values that JSON can hold."""
        ...

    def cross_attention(self, call: int, calls: int) -> Sequence[EditedRow]:
        """Rows edited in every cross-attention layer at one of so many denoiser calls, counted from 0."""
        ...

    def self_attention(self, call: int, calls: int, positions: int) -> Sequence[EditedRow]:
        """Rows edited in a self-attention layer of so many positions."""
        ...


class AttentionEditor:
    """Carries out an `AttentionEdit` in the layers of a U-Net, one denoiser call after another.

    Parameters
    ----------
    edit : AttentionEdit or None
        None: nothing is edited, and no hook is installed.
    """

    def __init__(self, edit: AttentionEdit | None) -> None:
        self._edit = edit
        self._offset = self._call = self._calls = 0
        self._cross: list[EditedRow] = []

    @property
    def active(self) -> bool:
        """Whether there is an edit at all."""
        return self._edit is not None

    def install(self, cross: Sequence[AttentionLayer], own: Sequence[AttentionLayer]) -> Iterator[RemovableHandle]:
        """Put hooks on cross- and self-attention layers, giving for each the handle that takes it out."""
        if self._edit is None:
            return
        for layer in cross:
            yield from LayerEditor(layer, lambda positions: self.cross_rows()).install()
        for layer in own:
            yield from LayerEditor(layer, self._self_rows).install()

    def begin_call(self, branches: Branches | None, call: int, calls: int) -> None:
        """Settle which denoiser call is under way, and which of its rows are conditional."""
        self._offset = 0 if branches is None else branches.conditional.start
        self._call, self._calls = call, calls
        self._cross = [] if self._edit is None else self._on_batch(self._edit.cross_attention(call, calls))

    def cross_rows(self) -> list[EditedRow]:
        """Rows of the whole batch whose cross-attention is edited in the call under way."""
        return self._cross

    def _self_rows(self, positions: int) -> list[EditedRow]:
        if self._edit is None:
            return []
        return self._on_batch(self._edit.self_attention(self._call, self._calls, positions))

    def _on_batch(self, edited: Sequence[EditedRow]) -> list[EditedRow]:
        return [each.shifted(self._offset) for each in edited]


class LayerEditor:
    """Forward hooks that edit the attention of one layer, in the arithmetic of its own processor.

    Parameters
    ----------
    layer : AttentionLayer
        A layer of a known processor.
    rows : callable
        Given the number of positions, the rows of the batch that are edited in the pass under way.
    """

    def __init__(self, layer: AttentionLayer, rows: Callable[[int], Sequence[EditedRow]]) -> None:
        self.layer = layer
        self._rows = rows
        self._edited: Sequence[EditedRow] = ()
        self._projected: list[torch.Tensor] = []  # queries, keys and values of the pass under way, as they were

    def install(self) -> Iterator[RemovableHandle]:
        """Put the hooks in one after another, giving for each the handle that takes it out."""
        attention = self.layer.attention
        # Every known processor calls them in this order.
        yield attention.to_q.register_forward_hook(self._after_to_q)
        yield attention.to_k.register_forward_hook(self._after_to_k)
        yield attention.to_v.register_forward_hook(self._after_to_v)
        yield attention.to_out[0].register_forward_pre_hook(self._before_to_out)

    def _after_to_q(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        check_processor(self.layer.path, self.layer.attention)
        self._edited = self._rows(output.shape[1])
        self._projected = [output] if self._edited else []
        return self._of_first_shares(output)

    def _after_to_k(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        self._note(output)
        return self._of_first_shares(output)

    def _after_to_v(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        self._note(output)
        if not self._edited:
            return None
        changed = output.clone()
        for edited in self._edited:
            changed[edited.row] = edited.shares[0].values(output[edited.row])
        return changed

    def _before_to_out(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        projected, self._projected = self._projected, []
        further = [(edited.row, share) for edited in self._edited for share in edited.shares[1:]]
        if not further:
            return None
        if len(projected) != 3:
            raise CaptureError(
                f"{self.layer.path} did not project queries, keys and values once each, so its attention cannot "
                "be edited. Is the pipeline called from two threads, or the module shared?"
            )
        query, key, value = projected
        output = args[0].clone()
        for row, share in further:
            output[row] += self._attend(query[share.row], key[share.row], share.values(value[row]))
        return (output, *args[1:])

    def _note(self, output: torch.Tensor) -> None:
        if self._edited:
            self._projected.append(output)

    def _of_first_shares(self, output: torch.Tensor) -> torch.Tensor | None:
        moved = [edited for edited in self._edited if edited.shares[0].row != edited.row]
        if not moved:
            return None
        changed = output.clone()
        for edited in moved:
            changed[edited.row] = output[edited.shares[0].row]
        return changed

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """One row's attention over some values: (n, width) queries, (keys, width) keys and values."""
        probabilities = attention_probabilities(
            *normalised(self.layer, query[None], key[None]),
            heads=self.layer.heads,
            scale=self.layer.scale,
            positions=slice(None),
            keep_heads=True,
        )[0]
        by_head = value.unflatten(1, (self.layer.heads, -1)).transpose(0, 1)
        return (probabilities.to(value.dtype) @ by_head).transpose(0, 1).flatten(1)


def edited_attention(attention: torch.Tensor, edited: Sequence[EditedRow], first: int) -> torch.Tensor:
    """Put the attention that is in effect in place of what the edited rows' queries and keys would give.

    Parameters
    ----------
    attention : torch.Tensor, shape (rows, ..., keys)
        Probabilities of all keys, from the queries and keys as they were projected.
    edited : sequence of EditedRow
        Rows of the whole batch.
    first : int
        The row of the batch that `attention` begins with.
    """
    changed = attention.clone()
    for each in edited:
        shares = [share.attention(attention[share.row - first]) for share in each.shares]
        changed[each.row - first] = torch.stack(shares).sum(dim=0) if len(shares) > 1 else shares[0]
    return changed
