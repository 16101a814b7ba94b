"""Prompt-to-prompt as an edit of attention: what of the source's attention is injected at which step."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from attnviz.capture import EditedRow

SOURCE, TARGET = 0, 1
"""Rows of the conditional half of the batch."""

MOST_SELF_POSITIONS = 32**2
"""Positions of the largest self-attention that is injected, as in the original."""


@dataclass(frozen=True, eq=False)
class Injection:
    """Attention of a source prompt, injected into the generation of a target prompt beside it.

    Attributes
    ----------
    keys : torch.Tensor, shape (keys, keys)
        How much of each source key's attention goes to which target key. A target key that nothing goes to keeps
        its own attention.
    weights : torch.Tensor, shape (keys,)
        Factor on each target key's attention.
    cross_fractions : torch.Tensor, shape (keys,), float64
        Up to which fraction of the denoiser calls each target key's attention is injected and weighed.
    self_fraction : float
        Up to which fraction of the denoiser calls self-attention is injected.
    record : mapping
        What the provenance of the maps says of it.

    Notes
    -----
    Source: Hertz et al., Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626):
    replacement, refinement and re-weighting are this one class. The source's row is never edited, nor is any
    unconditional row.

    A fraction of the calls is rounded down to whole calls, as in the original; PNDM makes one call more than
    steps.
    """

    keys: torch.Tensor
    weights: torch.Tensor
    cross_fractions: torch.Tensor
    self_fraction: float
    record: Mapping[str, Any] = field(default_factory=dict)

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
        if positions > MOST_SELF_POSITIONS or call >= whole_calls(self.self_fraction, calls):
            return ()
        return (EditedRow(TARGET, SOURCE),)

    def _injected(self, injected: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Probabilities (..., keys) the target is to have."""
        keys, weights = self.keys.to(source), self.weights.to(source)
        replaced = torch.where(keys.any(dim=0), source @ keys, target)
        return torch.where(injected.to(source.device), replaced * weights, target)


def whole_calls(fraction: float, calls: int) -> int:
    """Round a fraction of so many calls down.

    Examples
    --------
    >>> whole_calls(0.5, 5), whole_calls(0.29, 100)
    (2, 29)
    """
    return math.floor(round(fraction * calls, 6))  # 0.29 x 100 is 28.999999999999996
