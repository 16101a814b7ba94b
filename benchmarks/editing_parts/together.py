"""Generate several weights of a word in one batch, with one source and an edit for each weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from attnviz.capture import EditedRow
from attnviz.editing import PromptEdit
from attnviz.editing.injection import Injection
from attnviz.maps import AttentionMaps
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.tracing.keys import token_table
from attnviz.tracing.trace import Trace


@dataclass(frozen=True, eq=False)
class Together:
    """Edits of one source: row 0 of the batch is the source, row n the target of the n-th edit."""

    injections: Sequence[Injection]

    @property
    def record(self) -> Mapping[str, Any]:
        """Entry in the provenance of the maps."""
        return {"edits": [dict(one.record) for one in self.injections]}

    def cross_attention(self, call: int, calls: int) -> Sequence[EditedRow]:
        """Rows edited in every cross-attention layer; see `attnviz.capture.AttentionEdit`."""
        return _placed(one.cross_attention(call, calls) for one in self.injections)

    def self_attention(self, call: int, calls: int, positions: int) -> Sequence[EditedRow]:
        """Rows edited in a self-attention layer; see `attnviz.capture.AttentionEdit`."""
        return _placed(one.self_attention(call, calls, positions) for one in self.injections)


def generate_together(
    pipe: AuffusionPipeline, edits: Sequence[PromptEdit], seed: int, **call: Any
) -> tuple[torch.Tensor, AttentionMaps]:
    """Generate a prompt and several edits of it from the same noise.

    Parameters
    ----------
    pipe : AuffusionPipeline
    edits : sequence of PromptEdit
        Edits of the same source, without a local blend.
    seed : int
        Seed of the noise.
    **call
        Arguments of the pipeline.

    Returns
    -------
    latents : torch.Tensor, shape (1 + edits, channels, rows, columns)
        Latents of the source and of the edits.
    maps : AttentionMaps
        Maps of all, in the same order.
    """
    source = token_table(pipe, edits[0].source)
    injections = [edit.injection(source, token_table(pipe, edit.target)) for edit in edits]
    with Trace(pipe, edit=Together(injections)) as traced:
        made = pipe(
            [edits[0].source, *(edit.target for edit in edits)],
            generator=[torch.Generator().manual_seed(seed) for _ in range(1 + len(edits))],
            output_type="latent",
            **call,
        )
    return made.latents, traced.maps


def _placed(edits: Iterable[Sequence[EditedRow]]) -> list[EditedRow]:
    """Move the target of each edit from row 1 to its own row."""
    return [replace(row, row=place) for place, rows in enumerate(edits, start=1) for row in rows]
