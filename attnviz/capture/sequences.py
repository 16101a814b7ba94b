"""Record the text attention of a model that writes one position after the other, by position."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from attnviz.capture.changes import Changes
from attnviz.capture.conditioning import Branches
from attnviz.capture.editing import AttentionEdit, AttentionEditor, EditedRow
from attnviz.capture.layers import CrossAttentionLayer, find_self_sites, find_sites, refuse_rewritten
from attnviz.capture.measures import MEASURES, Block, Measure
from attnviz.capture.site import AttentionSite, SeenAttention, is_tapped
from attnviz.capture.store import CapturedLayer
from attnviz.errors import CaptureError, MemoryBudgetError
from attnviz.models.families import Family


@dataclass
class SequenceRecording:
    """The attention of one call.

    Attributes
    ----------
    prompts : int
        Number of prompts, each of one sequence.
    keys : sequence of int
        Key positions that are kept, ascending.
    positions : int
        Positions to come.
    first_text : int
        First key of the text.
    delays : int
        Positions over which the codebooks of a frame are spread; 1 without a delay.
    seen : dict of str to torch.Tensor
        By layer, float32 of shape (prompts, [heads], positions, keys); NaN where no query was.
    """

    prompts: int
    keys: Sequence[int]
    positions: int
    first_text: int
    delays: int
    seen: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def reached(self) -> int:
        """Positions that every layer has seen, from the first on."""
        if not self.seen:
            return 0
        missing = [torch.isnan(each).flatten(0, -3).any(dim=0).any(dim=-1) for each in self.seen.values()]
        nowhere = torch.stack([each.cpu() for each in missing]).any(dim=0)
        return int(nowhere.nonzero()[0]) if nowhere.any() else self.positions

    @property
    def frames(self) -> int:
        """Frames of which all codebooks were made."""
        return max(0, self.reached - self.delays + 1)

    @property
    def complete(self) -> bool:
        """Whether every position was seen."""
        return bool(self.seen) and self.reached == self.positions


class SequenceRecorder(Changes):
    """Record the text attention of a decoder of transformers by position; a context manager.

    Each module's ``forward`` is replaced on entry, in all modules or none, and restored on every kind of exit. The
    position of a query follows from the length of the cache before its call, since a call may be repeated.

    Parameters
    ----------
    decoder : torch.nn.Module
    family : Family
    keep_heads : bool
        Whether to keep heads apart instead of averaging them.
    max_bytes : int
        Budget of what is kept, in bytes.
    measure : Measure
        What is recorded of each module; by default, its probabilities.
    edited : bool
        Whether `begin` may give an edit.
    """

    def __init__(
        self,
        decoder: nn.Module,
        family: Family,
        *,
        keep_heads: bool,
        max_bytes: int,
        measure: Measure = MEASURES["attention"],
        edited: bool = False,
    ) -> None:
        if measure.self_attention:
            raise CaptureError(
                f"method={measure.name!r} is not defined for {family.name}, which writes one position after the "
                "other. Use method='attention'."
            )
        super().__init__()
        self.measure = measure
        self.edited = edited
        self._editor = AttentionEditor(None)
        self.decoder, self.family = decoder, family
        self.keep_heads, self.max_bytes = keep_heads, max_bytes
        self.layers: list[CrossAttentionLayer] = []
        self._names = list(inspect.signature(type(decoder).forward).parameters)[1:]
        self._current: SequenceRecording | None = None
        self._rows = slice(0, 0)
        self._prefix = self._skipped = self._first = 0

    def _make(self) -> None:
        """Tap all modules that attend to the text, or none."""
        self.layers = find_sites(self.decoder, self.family)
        for layer in self.layers:
            if is_tapped(layer.attention):
                raise CaptureError(
                    "This model is being traced already. Leave the first `with trace(...)` block before entering "
                    "another."
                )
        self._finally(self.end)
        self._hook(self.decoder.register_forward_pre_hook, self._before, with_kwargs=True)
        rows = self._joint_rows if self.family.queries.are_keys else self._cross_rows
        for layer in self.layers:
            self._replace(layer.attention, "forward", AttentionSite(layer, rows, self._record).forward)
        for other in find_self_sites(self.decoder, self.family) if self.edited else ():
            self._replace(other.attention, "forward", AttentionSite(other, self._self_rows, None).forward)

    def _cross_rows(self, positions: int) -> Sequence[EditedRow]:
        return self._editor.cross_rows(positions)

    def _self_rows(self, positions: int) -> Sequence[EditedRow]:
        return self._editor.self_rows(positions)

    def _joint_rows(self, positions: int) -> Sequence[EditedRow]:
        return self._editor.joint_rows(positions, keys=self._prefix, first=self._skipped)

    def begin(self, recording: SequenceRecording, edit: AttentionEdit | None = None) -> None:
        """Start recording one call, and edit its attention.

        Raises
        ------
        CaptureError
            If the decoder was compiled since tracing began.
        """
        refuse_rewritten(self.decoder)
        self._current, self._prefix = recording, 0
        self._editor = AttentionEditor(edit)

    def end(self) -> None:
        """End the recording: a call of the decoder before the next `begin` raises an error."""
        self._current = None

    def captured(self, recording: SequenceRecording) -> Mapping[str, CapturedLayer]:
        """Return the attention of each frame: the mean over the positions that made its codebooks."""
        return _Frames(self.layers, recording, keep_heads=self.keep_heads)

    def _before(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recording = self._current
        if recording is None:
            raise CaptureError(
                "The traced decoder was called outside `generate` of the traced model, so its prompt is not "
                "known. Call generate() of the object that was passed to trace()."
            )
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        past, states = given.get("past_key_values"), given.get("encoder_hidden_states")
        cached = 0 if past is None else int(past.get_seq_length())
        if states is not None:
            self._rows = self._conditional(recording, states)
            self._prefix = int(states.shape[1]) if self.family.queries.are_keys else 0
        self._first = max(0, cached - self._prefix) if cached else 0
        self._skipped = 0 if cached else self._prefix
        self._editor.begin_call(Branches(self._rows, None), 0, 1)

    def _conditional(self, recording: SequenceRecording, states: torch.Tensor) -> slice:
        """Return the rows of the prompts: all, or the first half, before rows whose text is zeros."""
        rows, first = recording.prompts, recording.first_text
        if len(states) == rows:
            return slice(0, rows)
        if len(states) == 2 * rows and bool((states[rows:, first:] == 0).all()):
            return slice(0, rows)
        raise CaptureError(
            f"The decoder was called with {len(states)} rows for {rows} prompts, and they are not the "
            "prompts followed by as many rows without text, so which rows are conditional is not known."
        )

    def _record(self, site: AttentionSite, seen: SeenAttention) -> None:
        recording = self._current
        if recording is None:
            raise CaptureError(f"{site.layer.path} was called outside its decoder, so its prompt is not known.")
        queries = seen.call.query.shape[2]
        new = queries - self._skipped
        if new < 1 or self._first + new > recording.positions:
            raise CaptureError(
                f"{site.layer.path} attends from {queries} positions, of which {self._skipped} are conditions, "
                f"from position {self._first} on, but {recording.positions} were announced."
            )
        keys = torch.as_tensor(recording.keys, device=seen.call.key.device)
        some = seen.columns(slice(self._skipped, queries))
        attention = self.measure.compute(Block(site.layer, some), self._rows, keys, self.keep_heads)
        if site.layer.name not in recording.seen:
            recording.seen[site.layer.name] = self._room(recording, attention)
        recording.seen[site.layer.name][..., self._first : self._first + new, :] = attention

    def _room(self, recording: SequenceRecording, attention: torch.Tensor) -> torch.Tensor:
        shape = (*attention.shape[:-2], recording.positions, attention.shape[-1])
        needed = 4 * int(np.prod(shape)) * len(self.layers)
        if needed > self.max_bytes:
            raise MemoryBudgetError(
                f"The requested maps need {needed} bytes ({len(self.layers)} layers, {recording.positions} "
                f"positions), but the budget is {self.max_bytes}. Keep fewer axes (keep=()), generate fewer "
                "tokens, or raise max_bytes."
            )
        return torch.full(shape, torch.nan, device=attention.device)


class _Frames(Mapping[str, CapturedLayer]):
    """Layers by name, each made on access."""

    def __init__(
        self, layers: Sequence[CrossAttentionLayer], recording: SequenceRecording, *, keep_heads: bool
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._recording, self._keep_heads = recording, keep_heads

    def __getitem__(self, name: str) -> CapturedLayer:
        layer, recording = self._layers[name], self._recording
        seen, frames = recording.seen[name], recording.frames
        mean = torch.stack([seen[..., k : k + frames, :] for k in range(recording.delays)]).mean(dim=0)
        dims = ("prompt", "image", *(["head"] if self._keep_heads else []), "token", "column")
        attention = mean.transpose(-1, -2).unsqueeze(1).cpu().numpy()
        return CapturedLayer(np.ascontiguousarray(attention), dims, layer.heads, layer.path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)
