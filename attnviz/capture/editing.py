"""Edit attention: replace the probabilities of some rows, or compute them from two rows.

The output of an edited row is ``P' @ V``: its own values, weighted by the edited probabilities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from attnviz.capture.conditioning import Branches
from attnviz.capture.kernel import KernelCall
from attnviz.capture.probabilities import HeadChunk, head_chunks

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
        Computes the probabilities of the edited row; None copies those of `source`. The change is linear in the
        pair of probabilities, so that of a difference of two is the difference of two changes.
    first : int
        First query that is edited. Queries before it keep their own attention.
    heads : frozenset of int or None
        Heads that are edited; others keep their own attention. None: all. Not of modules that attend to text and
        audio with the same softmax.
    """

    row: int
    source: int
    change: Change | None = None
    first: int = 0
    heads: frozenset[int] | None = None

    @property
    def copies(self) -> bool:
        """Whether queries and keys of the source, in place of the row's own, have the same effect."""
        return self.change is None and not self.first and self.heads is None

    def shifted(self, rows: int) -> EditedRow:
        """Return the same edit with both row indices increased by `rows`."""
        return replace(self, row=self.row + rows, source=self.source + rows)

    def attention(self, source: torch.Tensor, own: torch.Tensor, heads: range | None = None) -> torch.Tensor:
        """Return the probabilities (..., queries, keys) of the edited row; `heads` are of the leading axis."""
        edited = source if self.change is None else self.change(source, own)
        if self.heads is not None and heads is not None:
            inside = torch.tensor([head in self.heads for head in heads], device=own.device)
            edited = torch.where(inside[:, None, None], edited, own)
        if not self.first:
            return edited
        return torch.cat([own[..., : self.first, :], edited[..., self.first :, :]], dim=-2)


class AttentionEdit(Protocol):
    """Edited rows of each denoiser call, counted within the conditional rows of the batch."""

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


@dataclass(frozen=True)
class _Unsettled:
    """An edit of which only the calls know more."""

    record: Mapping[str, Any] = field(default_factory=dict)

    def cross_attention(self, call: int, calls: int) -> Sequence[EditedRow]:
        return ()

    def self_attention(self, call: int, calls: int, positions: int) -> Sequence[EditedRow]:
        return ()


UNSETTLED: AttentionEdit = _Unsettled()
"""Edit of a recorder whose calls bring their own: nothing until then."""


class AttentionEditor:
    """Find the rows that an `AttentionEdit` edits at each denoiser call.

    Parameters
    ----------
    edit : AttentionEdit or None
        None edits nothing.
    """

    def __init__(self, edit: AttentionEdit | None) -> None:
        self._edit = edit
        self._branches: Branches | None = None
        self._call = self._calls = 0
        self._cross: list[EditedRow] = []

    def begin_call(self, branches: Branches | None, call: int, calls: int) -> None:
        """Set the current denoiser call and its conditional rows; None if it has none, which edits nothing."""
        self._branches = branches
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

    def joint_rows(self, positions: int, *, keys: int, first: int) -> list[EditedRow]:
        """Return the rows edited in a module that attends to the text and, with the same softmax, to the audio.

        Parameters
        ----------
        positions : int
            Query positions.
        keys : int
            Keys that are conditions. Attention to them is edited as cross-attention, and attention to the keys
            after them as self-attention.
        first : int
            First query that is audio. Those before it are conditions, too, and keep their own attention.
        """
        cross, own = ({each.row: each for each in rows} for rows in (self._cross, self.self_rows(positions)))
        edited = []
        for row in sorted(cross.keys() | own.keys()):
            parts = cross.get(row), own.get(row)
            source = next(each.source for each in parts if each is not None)
            edited.append(EditedRow(row, source, functools.partial(_in_parts, parts, keys), first))
        return edited

    def _on_batch(self, edited: Sequence[EditedRow]) -> list[EditedRow]:
        if self._branches is None:
            return []
        return [each.shifted(self._branches.conditional.start) for each in edited]


def with_sources(tensor: torch.Tensor, edited: Sequence[EditedRow]) -> torch.Tensor:
    """Copy rows of queries, keys or a mask from each source to the row that takes its attention unchanged."""
    moved = [each for each in edited if each.copies and each.row != each.source]
    if not moved or len(tensor) == 1:
        return tensor
    changed = tensor.clone()
    for each in moved:
        changed[each.row] = tensor[each.source]
    return changed


def with_changes(call: KernelCall, edited: Sequence[EditedRow], output: torch.Tensor) -> torch.Tensor:
    """Return a kernel's output with ``P' @ V`` in the rows whose probabilities are changed.

    Parameters
    ----------
    call : KernelCall
        Arguments of the kernel, before edits.
    edited : sequence of EditedRow
        Rows of the batch.
    output : torch.Tensor, shape (rows, heads, n, width)
        Output of the kernel. Where a query's probabilities are equal after the change, so is its output, to the
        last bit.
    """
    changed = [each for each in edited if not each.copies]
    if not changed or call.value is None:
        return output
    output = output.clone()
    for each in changed:
        pair = call.rows([each.source, each.row])
        for heads, (source, own) in _by_heads(pair):
            mine = each.attention(source, own, _numbers(heads, own))
            same = (mine == own).all(dim=-1, keepdim=True)
            computed = (mine @ call.value[each.row, heads].float()).to(output.dtype)
            output[each.row, heads] = torch.where(same, output[each.row, heads], computed)
    return output


def edited_chunks(chunks: Iterable[HeadChunk], edited: Sequence[EditedRow], first: int) -> Iterator[HeadChunk]:
    """Yield the edited attention chunk by chunk.

    Parameters
    ----------
    chunks : iterable of (slice, torch.Tensor)
        Probabilities from the queries and keys, before edits.
    edited : sequence of EditedRow
        Rows of the whole batch.
    first : int
        Row of the batch at which the chunks begin.
    """
    for heads, probabilities in chunks:
        changed = probabilities.clone() if edited else probabilities
        for each in edited:
            own = probabilities[each.row - first]
            changed[each.row - first] = each.attention(
                probabilities[each.source - first], own, _numbers(heads, own)
            )
        yield heads, changed


def _numbers(heads: slice, of: torch.Tensor) -> range:
    """Return the numbers of the heads of a chunk, (heads, queries, keys)."""
    first = heads.start or 0
    return range(first, first + len(of))


def _by_heads(call: KernelCall) -> Iterator[HeadChunk]:
    return head_chunks(call.query, call.key, scale=call.scale, bias=call.bias)


def _in_parts(
    parts: tuple[EditedRow | None, EditedRow | None], keys: int, source: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """Change the attention to the first `keys` keys, and to the others, by an edit of each."""
    sides = (source[..., :keys], own[..., :keys]), (source[..., keys:], own[..., keys:])
    edited = [
        mine if part is None else part.attention(theirs, mine)
        for part, (theirs, mine) in zip(parts, sides, strict=True)
    ]
    return torch.cat(edited, dim=-1)
