"""Apply a local blend after each step of a generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from attnviz.editing.blend import LocalBlend, blend_mask
from attnviz.editing.injection import SOURCE, whole_calls
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.keys import kept_positions
from attnviz.pipelines.recommended import AUTHORS
from attnviz.text import TokenTable
from attnviz.tracing import Trace


class Blending:
    """Local blend of an edit as a callback of the pipeline.

    Parameters
    ----------
    blend : LocalBlend
        Blend with threshold and start.
    edit : PromptEdit
        The edit.
    tables : sequence of TokenTable
        Token tables of source and target.

    Attributes
    ----------
    mask : numpy.ndarray or None
        Shape (rows, columns), bool: latent cells edited in the last step, or None before the start of the blend.

    Raises
    ------
    PromptError
        If one of its words has no token, because the prompt was truncated.
    """

    def __init__(self, blend: LocalBlend, edit: PromptEdit, tables: Sequence[TokenTable]) -> None:
        positions = kept_positions(tables, "text")
        source, target = (
            sorted({positions.index(int(key)) for span in spans for key in table.find(span)})
            for table, spans in zip(tables, edit.blend_spans, strict=True)
        )
        self._columns = source, target
        settled = blend.settled(None, AUTHORS[edit.kind]["blend_start"])
        self._threshold, self._start = float(settled.threshold or 0.0), float(settled.start or 0.0)
        self.mask: np.ndarray | None = None

    def on(self, traced: Trace) -> Callable[..., dict[str, Any]]:
        """Return the callback, which uses the maps of a trace."""

        def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents = tensors["latents"]
            if step >= whole_calls(self._start, pipe.num_timesteps):
                size = latents.shape[-2], latents.shape[-1]
                mask = blend_mask(traced.so_far(), self._columns, size, self._threshold)
                self.mask = mask.numpy()
                tensors["latents"] = torch.where(mask.to(latents.device), latents, latents[SOURCE])
            return tensors

        return after_step
