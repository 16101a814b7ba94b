"""Local blend: restrict an edit to the times and frequencies at which some words have attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import interpolate, max_pool2d

from attnviz.arguments import public
from attnviz.capture import CapturedLayer
from attnviz.editing.alignment import Phrase
from attnviz.editing.injection import SOURCE, TARGET
from attnviz.errors import AttnVizError

THRESHOLD = 0.3
"""Default fraction of a map's maximum, as in prompt-to-prompt."""


@public
@dataclass(frozen=True)
class LocalBlend:
    """Restrict an edit to the cells in which some words have attention.

    After each step, latents in cells without attention to the words of source and target are replaced by those of
    the source.

    Attributes
    ----------
    source, target : sequence of str, (int, int) or (str, int)
        Words of the source and of the target prompt. By default, the words in which the two differ, or the
        weighted words of a re-weighting.
    threshold : float, optional
        Fraction of a map's maximum above which a cell is edited, in [0, 1). By default, the recommendation of the
        checkpoint, or 0.3.
    start : float, optional
        Fraction of the steps after which the blend begins, in [0, 1], since the maps of the first steps are
        coarse. By default, the recommendation of the checkpoint, or 0.2.

    Raises
    ------
    AttnVizError
        If the threshold or start is out of range.

    Notes
    -----
    Source: Hertz et al. (arXiv 2208.01626), local blend of the authors' code.

    Differences from the original: the maps of all layers are read on their own grids of frequency and time, and
    resized to that of the latents; the original uses the layers with 256 positions and reshapes them to 16 x 16,
    regardless of their grid.
    """

    source: Sequence[Phrase] = ()
    target: Sequence[Phrase] = ()
    threshold: float | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise AttnVizError(
                f"The blend's threshold {self.threshold!r} is not in [0, 1): a share of a map's maximum, above "
                "which a cell is edited."
            )
        if self.start is not None and not 0 <= self.start <= 1:
            raise AttnVizError(f"The blend's start {self.start!r} is not a fraction of the steps, in [0, 1].")

    @public
    def settled(self, threshold: float | None, start: float) -> LocalBlend:
        """Return the blend with missing values taken from recommendations."""
        usual = THRESHOLD if threshold is None else threshold
        return replace(
            self,
            threshold=usual if self.threshold is None else float(self.threshold),
            start=start if self.start is None else float(self.start),
        )


def blend_mask(
    layers: Mapping[str, CapturedLayer],
    columns: tuple[Sequence[int], Sequence[int]],
    size: tuple[int, int],
    threshold: float,
) -> torch.Tensor:
    """Compute the mask of edited latent cells.

    Parameters
    ----------
    layers : mapping of str to CapturedLayer
        Attention so far, for source and target prompt.
    columns : pair of sequences of int
        Entries of the token axis for the words of the source and of the target.
    size : (int, int)
        Rows and columns of the latents.
    threshold : float
        Fraction of a map's maximum above which a cell is edited.

    Returns
    -------
    torch.Tensor, shape (rows, columns), bool
    """
    mask = torch.zeros(size, dtype=torch.bool)
    for prompt, chosen in zip((SOURCE, TARGET), columns, strict=True):
        if not chosen:
            continue
        # A word with a negative weight has a negative map without cells above a fraction of its maximum. The
        # edited cells are then those of the source.
        heat = torch.as_tensor(sum(_resized(layer, prompt, chosen, size) for layer in layers.values()))
        mask |= heat > threshold * heat.max()
    return mask


def _resized(
    layer: CapturedLayer, prompt_index: int, chosen: Sequence[int], size: tuple[int, int]
) -> torch.Tensor:
    """Return the map of some tokens in one layer, on the grid of the latents."""
    array = np.take(layer.attention, prompt_index, axis=layer.dims.index("prompt"))
    dims = [name for name in layer.dims if name != "prompt"]
    array = np.take(array, chosen, axis=dims.index("token"))
    heat = array.mean(axis=tuple(i for i, name in enumerate(dims) if name not in ("row", "column")))
    heat = heat.reshape(-1, heat.shape[-1])  # one row in models of time alone
    grown = max_pool2d(torch.from_numpy(heat)[None, None], kernel_size=3, stride=1, padding=1)
    return interpolate(grown, size=size, mode="bilinear", align_corners=False)[0, 0]
