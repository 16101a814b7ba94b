"""Edit attention: replace the probabilities of some rows, or compute them from two rows.

The output of an edited row is ``P' @ V``: its own values, weighted by the edited probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from attnviz.capture.conditioning import Branches
from attnviz.capture.probabilities import HeadChunk

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps the probabilities (..., keys) of the source and of the edited row, float32, to the edited probabilities."""


@dataclass(frozen=True)
class EditedRow:
    """A row of the batch whose attention differs from what its queries and keys give.

    Attributes
    ----------
    row : int
        The edited row.
    source : int
        The row whose probabilities are injected. Unless it equals `row`, it must not be edited itself.
    change : callable or None
        Computes the probabilities of the edited row; None copies those of `source`.
    """

    row: int
    source: int
    change: Change | None = None

    def shifted(self, rows: int) -> EditedRow:
        """Return the same edit with both row indices increased by `rows`."""
        return EditedRow(self.row + rows, self.source + rows, self.change)

    def attention(self, source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the edited row."""
        return source if self.change is None else self.change(source, own)


class AttentionEdit(Protocol):
    """Edited rows of each denoiser call, counted within the conditional half of the batch."""

    @property
    def record(self) -> Mapping[str, Any]:
        """Description for the provenance of the maps; JSON values only."""
        ...

    def cross_attention(self, call: int, calls: int) -> Sequence[EditedRow]:
        """Return the rows edited in every cross-attention layer at denoiser call `call` of `calls`, from 0."""
        ...

    def self_attention(self, call: int, calls: int, positions: int) -> Sequence[EditedRow]:
        """Return the rows edited in a self-attention layer with `positions` positions."""
        ...


class AttentionEditor:
    """Find the rows that an `AttentionEdit` edits at each denoiser call.

    Parameters
    ----------
    edit : AttentionEdit or None
        None edits nothing.
    """

    def __init__(self, edit: AttentionEdit | None) -> None:
        self._edit = edit
        self._offset = self._call = self._calls = 0
        self._cross: list[EditedRow] = []

    @property
    def active(self) -> bool:
        """Whether there is an edit."""
        return self._edit is not None

    def begin_call(self, branches: Branches, call: int, calls: int) -> None:
        """Set the current denoiser call and its conditional rows."""
        self._offset = branches.conditional.start
        self._call, self._calls = call, calls
        self._cross = [] if self._edit is None else self._on_batch(self._edit.cross_attention(call, calls))

    def cross_rows(self, positions: int) -> list[EditedRow]:
        """Return the rows of the whole batch whose cross-attention is edited in the current call."""
        return self._cross

    def self_rows(self, positions: int) -> list[EditedRow]:
        """Return the rows of the whole batch whose self-attention, over `positions` positions, is edited."""
        if self._edit is None:
            return []
        return self._on_batch(self._edit.self_attention(self._call, self._calls, positions))

    def _on_batch(self, edited: Sequence[EditedRow]) -> list[EditedRow]:
        return [each.shifted(self._offset) for each in edited]


def with_sources(tensor: torch.Tensor, edited: Sequence[EditedRow]) -> torch.Tensor:
    """Copy rows of queries, keys or a mask from each source to the row that takes its attention unchanged."""
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
    """Yield the edited attention chunk by chunk, and write the output of changed rows.

    Parameters
    ----------
    chunks : iterable of (slice, torch.Tensor)
        Probabilities from the projected queries and keys.
    edited : sequence of EditedRow
        Rows of the whole batch.
    first : int
        Row of the batch at which the chunks begin.
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
