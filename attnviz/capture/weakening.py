"""Weaken the attention of some heads to some keys, differently in each row of a batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from attnviz.capture.editing import EditedRow
from attnviz.capture.layers import find_sites
from attnviz.capture.outputs import AtSites
from attnviz.models.families import Family

Head = tuple[str, int]
"""Name of a layer, and number of a head."""


class WeakenedHeads(AtSites):
    """Multiply the attention of some heads to some keys by a factor; a context manager.

    Attention is not made to sum to 1 again, as in re-weighting: the other keys keep theirs.

    Parameters
    ----------
    denoiser : torch.nn.Module
    family : Family
    positions : collection of int
        The keys.
    factor : float

    Attributes
    ----------
    rows : sequence of collections of (str, int)
        The heads that are weakened, for each row of the next call of the denoiser.
    """

    def __init__(self, denoiser: nn.Module, family: Family, positions: Collection[int], factor: float) -> None:
        super().__init__(denoiser, family)
        self.rows: Sequence[Collection[Head]] = ()
        self._names = {layer.path: layer.name for layer in find_sites(denoiser, family)}
        self._positions, self._factor = sorted(positions), factor

    def _edits(self, path: str, positions: int) -> Sequence[EditedRow]:
        name = self._names[path]
        found = (
            (row, frozenset(head for layer, head in own if layer == name)) for row, own in enumerate(self.rows)
        )
        return [EditedRow(row, row, self._weakened, heads=heads) for row, heads in found if heads]

    def _weakened(self, source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        changed = own.clone()
        changed[..., self._positions] *= self._factor
        return changed


def heads_of(denoiser: nn.Module, family: Family) -> list[Head]:
    """Return all heads that attend to the text, by layer."""
    return [(layer.name, head) for layer in find_sites(denoiser, family) for head in range(layer.heads)]
