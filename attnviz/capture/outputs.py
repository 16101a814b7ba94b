"""Keep the output of each attention kernel that attends to the text, with its gradient graph."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn

from attnviz.capture.changes import Changes
from attnviz.capture.editing import EditedRow
from attnviz.capture.layers import find_sites, remedy
from attnviz.capture.processor import is_traced
from attnviz.capture.site import AttentionSite, SeenAttention
from attnviz.errors import CaptureError
from attnviz.models.families import Family


class AtSites(Changes):
    """A tap on the kernel of each layer of a denoiser, whose modules have slots; a context manager.

    Parameters
    ----------
    denoiser : torch.nn.Module
    family : Family
    """

    def __init__(self, denoiser: nn.Module, family: Family) -> None:
        super().__init__()
        self.denoiser, self.family = denoiser, family

    def _make(self) -> None:
        if is_traced(self.denoiser):
            raise CaptureError(
                "The denoiser is being traced already. Explain outside the `with trace(...)` block."
            )
        for layer in find_sites(self.denoiser, self.family):
            edits = functools.partial(self._edits, layer.path)
            site = AttentionSite(layer, edits, self._receive, signs=self.family.signs(layer.attention))
            self._finally(functools.partial(_put_back, layer.attention, site))
            layer.attention.processor = site.processor

    def _edits(self, path: str, positions: int) -> Sequence[EditedRow]:
        """Return the rows of the batch that are edited in a layer."""
        return ()

    def _receive(self, site: AttentionSite, seen: SeenAttention) -> None:
        """Receive what a layer has done."""


class KernelOutputs(AtSites):
    """Keep the output of the kernel of each layer of a denoiser; a context manager.

    The gradient by the probabilities of a layer is that by the output of its kernel, times the values: the
    probabilities themselves need not be in the graph, so every fused kernel will do.

    Parameters
    ----------
    denoiser : torch.nn.Module
    family : Family

    Attributes
    ----------
    outputs : dict of str to torch.Tensor
        By the path of the module, of the latest call.
    """

    def __init__(self, denoiser: nn.Module, family: Family) -> None:
        super().__init__(denoiser, family)
        self.outputs: dict[str, torch.Tensor] = {}

    def _make(self) -> None:
        self._finally(self.outputs.clear)
        super()._make()

    def _receive(self, site: AttentionSite, seen: SeenAttention) -> None:
        if seen.output is None:
            raise CaptureError(
                f"{site.layer.path} computes its attention without torch's kernel (attention slicing, or the "
                "classic processor), or by two calls, so its gradient is not known. " + remedy(site.layer)
            )
        self.outputs[site.layer.path] = seen.output


def _put_back(attention: nn.Module, site: AttentionSite) -> None:
    if attention.processor is site.processor:
        attention.processor = site.processor.inner
