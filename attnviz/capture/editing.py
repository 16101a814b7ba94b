"""Edited attention: rows of a batch whose probabilities are another row's, or made from both.

An edited row's output is ``P' @ V``: its own values, weighed by the edited probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from attnviz.capture.conditioning import Branches
from attnviz.capture.probabilities import HeadChunk

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Probabilities (..., keys) of the source and of the edited row itself, float32: those that the row is to have."""


@dataclass(frozen=True)
class EditedRow:
    """A row of the batch that attends otherwise than its queries and keys say.

    Attributes
    ----------
    row : int
        The edited row.
    source : int
        The row whose probabilities are injected; it is not edited itself, where it is another.
    change : callable or None
        What the edited row's probabilities are; None: those of `source` as they are.
    """

    row: int
    source: int
    change: Change | None = None

    def shifted(self, rows: int) -> EditedRow:
        """The same, counted from so many rows earlier."""
        return EditedRow(self.row + rows, self.source + rows, self.change)

    def attention(self, source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Probabilities of the edited row."""
        return source if self.change is None else self.change(source, own)


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
    """Tells which rows an `AttentionEdit` edits, one denoiser call after another.

    Parameters
    ----------
    edit : AttentionEdit or None
        None: nothing is edited.
    """

    def __init__(self, edit: AttentionEdit | None) -> None:
        self._edit = edit
        self._offset = self._call = self._calls = 0
        self._cross: list[EditedRow] = []

    @property
    def active(self) -> bool:
        """Whether there is an edit at all."""
        return self._edit is not None

    def begin_call(self, branches: Branches, call: int, calls: int) -> None:
        """Settle which denoiser call is under way, and which of its rows are conditional."""
        self._offset = branches.conditional.start
        self._call, self._calls = call, calls
        self._cross = [] if self._edit is None else self._on_batch(self._edit.cross_attention(call, calls))

    def cross_rows(self, positions: int) -> list[EditedRow]:
        """Rows of the whole batch whose cross-attention is edited in the call under way."""
        return self._cross

    def self_rows(self, positions: int) -> list[EditedRow]:
        """Rows of the whole batch whose self-attention, of so many positions, is edited."""
        if self._edit is None:
            return []
        return self._on_batch(self._edit.self_attention(self._call, self._calls, positions))

    def _on_batch(self, edited: Sequence[EditedRow]) -> list[EditedRow]:
        return [each.shifted(self._offset) for each in edited]


def with_sources(tensor: torch.Tensor, edited: Sequence[EditedRow]) -> torch.Tensor:
    """Put the sources' rows of queries, keys or a mask in place of those of rows that attend just as they do."""
    moved = [each for each in edited if each.change is None and each.row != each.source]
    if not moved or len(tensor) == 1:
        return tensor
    changed = tensor.clone()
    for each in moved:
        changed[each.row] = tensor[each.source]
    return changed


def edited_chunks(
    chunks: Iterable[HeadChunk],
    edited: Sequence[EditedRow],
    first: int,
    value: torch.Tensor | None,
    output: torch.Tensor | None,
) -> Iterator[HeadChunk]:
    """Give the attention in effect, chunk by chunk, and write what changed rows get from it.

    Parameters
    ----------
    chunks : iterable of (slice, torch.Tensor)
        Probabilities from the queries and keys as they were projected.
    edited : sequence of EditedRow
        Rows of the whole batch.
    first : int
        The row of the batch that the chunks begin with.
    value : torch.Tensor, shape (rows of the batch, heads, keys, width), or None
    output : torch.Tensor, shape (rows of the batch, heads, n, width), or None
        Overwritten with ``P' @ V`` where a row's probabilities are changed.
    """
    for some, probabilities in chunks:
        changed = probabilities.clone()
        for each in edited:
            mine = each.attention(probabilities[each.source - first], probabilities[each.row - first])
            changed[each.row - first] = mine
            if each.change is not None and value is not None and output is not None:
                output[each.row, some] = (mine @ value[each.row, some].float()).to(output.dtype)
        yield some, changed
