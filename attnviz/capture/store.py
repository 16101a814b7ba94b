"""The streaming store: attention of one denoiser call after another in, means out."""

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
        ``("branch",)`` only where both branches were kept, then ``"prompt", "image"``, then
        ``"step"`` and ``"head"`` where kept, then ``"token", "row", "column"``.
    heads : int
        Number of heads of the layer.
    path : str
        Full path of the attention module in the U-Net.
    stride : (int, int)
        Rows and columns of the latents from one cell to the next.
    """

    attention: np.ndarray
    dims: tuple[str, ...]
    heads: int
    path: str
    stride: tuple[int, int] = (1, 1)


class AttentionStore:
    """Sums attention over the denoiser calls of one pipeline call, within a byte budget.

    What a call adds counts only once that call has ended (`commit`), so an interrupt half-way
    through the U-Net leaves every layer at the same number of calls.

    Parameters
    ----------
    layers : collection of str
        Names of the layers that every call must add.
    keep_steps : bool
        Keep each call's attention apart instead of summing.
    max_bytes : int
        The most the store may hold, in bytes, over all layers.
    expected_calls : int
        Denoiser calls that will come; what a kept step costs is multiplied by it beforehand.
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
        """Take one layer's attention of the call in progress.

        Raises
        ------
        MemoryBudgetError
            If the whole run would not fit the budget; raised during the first call, before anything
            is kept.
        CaptureError
            If the layer was seen already in this call.
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
        """End the call in progress: what it added now counts.

        Raises
        ------
        CaptureError
            If a layer was skipped, or its attention is not finite; the call then does not count.
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
        """Forget what the call in progress added."""
        self._of_this_call = {}

    def array(self, layer: str) -> np.ndarray:
        """Attention of one layer over the committed calls.

        Returns
        -------
        numpy.ndarray, float32
            The mean over calls; with `keep_steps`, the calls stacked along a new first axis.
        """
        if self.keep_steps:
            return torch.stack(self._steps[layer]).numpy()
        return (self._sums[layer] / self.calls).cpu().numpy()

    def _promise(self, layer: str, attention: torch.Tensor) -> None:
        times = self.expected_calls if self.keep_steps else 1
        self.promised_bytes += attention.nbytes * times
        if self.promised_bytes > self.max_bytes:
            raise MemoryBudgetError(
                f"The maps asked for need more than {_mib(self.promised_bytes)} (reached at {layer}; "
                f"{self.expected_calls} denoiser calls), and the budget is {_mib(self.max_bytes)}. "
                "Keep fewer axes (keep=()), fewer tokens (tokens='text') or images, or raise max_bytes."
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
            f"layers, first in {broken[0]}. In float16 this is an overflow (try bfloat16 or float32); "
            "otherwise a weight of the checkpoint is not finite."
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"
