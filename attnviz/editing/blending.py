"""Apply a local blend after each step of a generation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from attnviz.capture import Changes
from attnviz.editing.blend import LocalBlend, blend_mask
from attnviz.editing.injection import SOURCE, whole_calls
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.models.families import Family
from attnviz.models.pipelines.recommended import AUTHORS
from attnviz.text import TokenTable
from attnviz.tracing.keys import kept_positions
from attnviz.tracing.trace import Trace


class Blending(Changes):
    """Blend the latents that a scheduler's ``step`` returns; a context manager.

    Parameters
    ----------
    blend : LocalBlend
        Blend with threshold and start.
    edit : PromptEdit
        The edit.
    traced : Trace
        Source of the maps.
    scheduler : object
        Noise schedule of the pipeline, of which each step is one call of ``step``.
    family : Family
        States the axes of the latents.

    Attributes
    ----------
    mask : numpy.ndarray or None
        Shape (rows, columns), or (columns,) in models without frequency; bool: latent cells edited in the last
        step, or None before the start of the blend.
    """

    def __init__(self, blend: LocalBlend, edit: PromptEdit, traced: Trace, scheduler: Any, family: Family) -> None:
        super().__init__()
        self._edit, self._traced, self._scheduler, self._family = edit, traced, scheduler, family
        settled = blend.settled(None, AUTHORS[edit.kind]["blend_start"])
        self._threshold, self._start = float(settled.threshold or 0.0), float(settled.start or 0.0)
        self._columns: tuple[list[int], list[int]] = ([], [])
        self._step = 0
        self.mask: np.ndarray | None = None

    def settle(self, tables: Sequence[TokenTable]) -> None:
        """Find the words of the blend in the token tables of source and target.

        Raises
        ------
        PromptError
            If one of its words has no token, because the prompt was truncated.
        """
        positions = kept_positions(tables, "text")
        source, target = (
            sorted({positions.index(int(key)) for span in spans for key in table.find(span)})
            for table, spans in zip(tables, self._edit.blend_spans, strict=True)
        )
        self._columns = source, target

    def _make(self) -> None:
        self._replace(self._scheduler, "step", self._blended(self._scheduler.step))

    def _blended(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def blended(*args: Any, **kwargs: Any) -> Any:
            made = step(*args, **kwargs)
            number, self._step = self._step, self._step + 1
            if number < whole_calls(self._start, len(self._scheduler.timesteps)):
                return made
            if isinstance(made, tuple):
                return self._on_latents(made[0]), *made[1:]
            made.prev_sample = self._on_latents(made.prev_sample)
            return made

        return blended

    def _on_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents with those of the source in cells that the edit leaves alone."""
        size = self._family.latent_size(latents.shape)
        mask = blend_mask(self._traced.so_far(), self._columns, size, self._threshold)
        self.mask = mask.numpy() if self._family.queries.has_freq else mask[0].numpy()
        on_grid = self._family.queries.on_latents(mask, latents).to(latents.device)
        return torch.where(on_grid, latents, latents[SOURCE])
