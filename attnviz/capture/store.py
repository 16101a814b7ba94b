"""Accumulate the attention of successive denoiser calls, and return means."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from attnviz.errors import CaptureError, MemoryBudgetError


@dataclass(frozen=True)
class CapturedLayer:
    """One layer's attention over one pipeline call.

    Attributes
    ----------
    attention : numpy.ndarray, float32
        Attention probability, averaged over the axes that were summed out. Axes as in `dims`.
        Row 0 is the top row of the image (for Auffusion the highest frequency).
    dims : tuple of str
        ``("branch",)`` only if both branches were kept, then ``"prompt", "image"``, then ``"step"`` and ``"head"``
        if kept, then ``"token", "row", "column"``.
    heads : int
        Number of heads of the layer.
    path : str
        Full path of the attention module in the U-Net.
    stride : (float, float)
        Latent rows and columns from one cell to the next.
    """

    attention: np.ndarray
    dims: tuple[str, ...]
    heads: int
    path: str
    stride: tuple[float, float] = (1, 1)


class AttentionStore:
    """Sum attention over the denoiser calls of one pipeline call, within a byte budget.

    What a call adds counts only after that call has ended (`commit`), so an interrupt inside the U-Net leaves
    every layer with the same number of calls.

    Parameters
    ----------
    layers : collection of str
        Names of the layers that must run in every call.
    keep_steps : bool
        Keep the attention of each call instead of summing it.
    max_bytes : int
        Upper limit of the store over all layers, in bytes.
    expected_calls : int
        Number of denoiser calls to come. The size of kept steps is checked for all of them in advance.
    """

    def __init__(self, layers: Collection[str], *, keep_steps: bool, max_bytes: int, expected_calls: int) -> None:
        self.layers = tuple(layers)
        self.keep_steps = keep_steps
        self.max_bytes = max_bytes
        self.expected_calls = expected_calls
        self.calls = 0
        self.promised_bytes = 0
        self._of_this_call: dict[str, torch.Tensor] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._steps: dict[str, list[torch.Tensor]] = {}

    def add(self, layer: str, attention: torch.Tensor) -> None:
        """Add one layer's attention to the current call.

        Raises
        ------
        MemoryBudgetError
            If the whole run would exceed the budget. Raised during the first call, before anything is kept.
        CaptureError
            If the layer was already added in this call.
        """
        if layer in self._of_this_call:
            raise CaptureError(
                f"{layer} ran twice within one denoiser call, so its attention has no single map. "
                "Is the module shared, or is gradient checkpointing on?"
            )
        if self.calls == 0:
            self._promise(layer, attention)
        self._of_this_call[layer] = attention

    def commit(self) -> None:
        """End the current call, so that what it added counts.

        Raises
        ------
        CaptureError
            If a layer was skipped, or its attention is not finite. The call then does not count.
        """
        self._check_all_ran()
        self._check_finite()
        for layer, attention in self._of_this_call.items():
            if self.keep_steps:
                self._steps.setdefault(layer, []).append(attention.cpu())
            elif layer in self._sums:
                self._sums[layer] += attention
            else:
                self._sums[layer] = attention
        self._of_this_call = {}
        self.calls += 1

    def discard(self) -> None:
        """Drop what the current call added."""
        self._of_this_call = {}

    def array(self, layer: str) -> np.ndarray:
        """Return the attention of one layer over the committed calls.

        Returns
        -------
        numpy.ndarray, float32
            Mean over calls; with `keep_steps`, the calls stacked along a new first axis.
        """
        if self.keep_steps:
            return torch.stack(self._steps[layer]).numpy()
        return (self._sums[layer] / self.calls).cpu().numpy()

    def _promise(self, layer: str, attention: torch.Tensor) -> None:
        times = self.expected_calls if self.keep_steps else 1
        self.promised_bytes += attention.nbytes * times
        if self.promised_bytes > self.max_bytes:
            raise MemoryBudgetError(
                f"The requested maps need more than {_mib(self.promised_bytes)} (reached at {layer}; "
                f"{self.expected_calls} denoiser calls), but the budget is {_mib(self.max_bytes)}. Keep fewer "
                "axes (keep=()), fewer tokens (tokens='text') or images, or raise max_bytes."
            )

    def _check_all_ran(self) -> None:
        skipped = [layer for layer in self.layers if layer not in self._of_this_call]
        if skipped:
            self.discard()
            raise CaptureError(
                f"{len(skipped)} of {len(self.layers)} cross-attention layers did not run in denoiser call "
                f"{self.calls}, first {skipped[0]}, so a mean over calls would be wrong. Is a cache of "
                "U-Net features (DeepCache and the like) on, or a block compiled?"
            )

    def _check_finite(self) -> None:
        sums = [attention.sum() for attention in self._of_this_call.values()]
        if not sums or bool(torch.isfinite(torch.stack(sums)).all()):
            return
        broken = [name for name, total in zip(self._of_this_call, sums, strict=True) if not total.isfinite()]
        self.discard()
        raise CaptureError(
            f"Attention is NaN or infinite at denoiser call {self.calls} in {len(broken)} of {len(sums)} "
            f"layers, first in {broken[0]}. In float16 this is an overflow (try bfloat16 or float32). Otherwise a "
            "weight of the checkpoint is not finite."
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"
