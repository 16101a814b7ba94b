"""Prompt-to-prompt as an edit of attention, which injects the attention of the source."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from attnviz.capture import EditedRow
from attnviz.errors import CaptureError

SOURCE, TARGET = 0, 1
"""Rows of the conditional half of the batch."""

MOST_SELF_POSITIONS = 32**2
"""Maximum number of positions of injected self-attention, as in the original."""


@dataclass(frozen=True, eq=False)
class Injection:
    """Injection of the attention of a source prompt into the generation of a target prompt.

    Attributes
    ----------
    keys : torch.Tensor, shape (keys, keys)
        Transfer weights from source keys to target keys. Target keys with zero weights keep their own attention.
    weights : torch.Tensor, shape (keys,)
        Factor on the attention of each target key.
    cross_fractions : torch.Tensor, shape (keys,), float64
        Fraction of the denoiser calls, from the first, in which attention of each target key is injected and
        weighted.
    self_fraction : float
        Fraction of the denoiser calls, from the first, in which self-attention is injected.
    record : mapping
        Entry for the provenance of the maps.
    most_self_positions : int or None
        Maximum number of positions of injected self-attention; None for models with one level, of time alone.

    Notes
    -----
    Source: Hertz et al., Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626):
    one class for replacement, refinement and re-weighting. The row of the source and unconditional rows are never
    edited.

    Fractions are rounded down to whole calls, as in the original; PNDM makes one call more than steps.
    """

    keys: torch.Tensor
    weights: torch.Tensor
    cross_fractions: torch.Tensor
    self_fraction: float
    record: Mapping[str, Any] = field(default_factory=dict)
    most_self_positions: int | None = MOST_SELF_POSITIONS

    def cross_attention(self, call: int, calls: int) -> Sequence[EditedRow]:
        """Rows edited in every cross-attention layer; see `attnviz.capture.AttentionEdit`."""
        injected = torch.tensor([call < whole_calls(float(each), calls) for each in self.cross_fractions])
        if not bool(injected.any()):
            return ()
        if bool(injected.all() and (self.weights == 1).all()) and torch.equal(
            self.keys, torch.eye(*self.keys.shape)
        ):
            return (EditedRow(TARGET, SOURCE),)
        return (EditedRow(TARGET, SOURCE, functools.partial(self._injected, injected)),)

    def self_attention(self, call: int, calls: int, positions: int) -> Sequence[EditedRow]:
        """Rows edited in a self-attention layer; see `attnviz.capture.AttentionEdit`."""
        too_fine = self.most_self_positions is not None and positions > self.most_self_positions
        if too_fine or call >= whole_calls(self.self_fraction, calls):
            return ()
        return (EditedRow(TARGET, SOURCE),)

    def _injected(self, injected: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the edited probabilities of the target, (..., keys)."""
        if source.shape[-1] != len(self.weights):
            raise CaptureError(
                f"A layer attends to {source.shape[-1]} keys, and the prompts have {len(self.weights)}, so which "
                "of them are edited is not known. Does an adapter add keys to those of the prompt?"
            )
        keys, weights = self.keys.to(source), self.weights.to(source)
        replaced = torch.where(keys.any(dim=0), source @ keys, target)
        return torch.where(injected.to(source.device), replaced * weights, target)


def whole_calls(fraction: float, calls: int) -> int:
    """Round a fraction of a number of calls down.

    Examples
    --------
    >>> whole_calls(0.5, 5), whole_calls(0.29, 100)
    (2, 29)
    """
    return math.floor(round(fraction * calls, 6))  # 0.29 x 100 is 28.999999999999996
