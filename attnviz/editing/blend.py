"""Local blend: an edit confined to where, in time and frequency, some words are attended to."""

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
"""Share of a map's maximum where none is given or recommended; prompt-to-prompt's."""


@dataclass(frozen=True)
class LocalBlend:
    """Confine an edit to where some words are attended to; elsewhere the source stays.

    After each step, latents where neither the source's nor the target's words are attended to are those of the
    source.

    Attributes
    ----------
    source, target : sequence of str, (int, int) or (str, int)
        Words of the source and of the target prompt. Both left out: the words in which the two differ, and in a
        re-weighting the words that are weighed.
    threshold : float, optional
        Share of a map's maximum above which a cell is edited, in [0, 1). None: what the checkpoint recommends, or
        0.3.
    start : float, optional
        Fraction of the steps after which the blend begins, in [0, 1]: maps of the first steps are rough. None:
        what the checkpoint recommends, or 0.2.

    Raises
    ------
    AttnVizError
        If the threshold or start is out of range.

    Notes
    -----
    Source: Hertz et al. (arXiv 2208.01626), local blend of the authors' code.

    Differences from the original: maps are read on each layer's own grid of frequency and time, of all layers, and
    resized to the latents'; the original reads the layers of 256 positions and folds them into 16 x 16, whatever
    their grid was.
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
        """Return the blend with what was left open as it is recommended."""
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
    """Say which latent cells are edited.

    Parameters
    ----------
    layers : mapping of str to CapturedLayer
        Attention so far, of two prompts: source and target.
    columns : pair of sequences of int
        Entries of the token axis that are the source's words, and the target's.
    size : (int, int)
        Rows and columns of the latents.
    threshold : float
        Share of a map's maximum above which a cell is edited.

    Returns
    -------
    torch.Tensor, shape (rows, columns), bool
    """
    mask = torch.zeros(size, dtype=torch.bool)
    for prompt, chosen in zip((SOURCE, TARGET), columns, strict=True):
        if not chosen:
            continue
        # A word that is weighed with a negative number has a negative map, none of which is above a share of its
        # maximum: what is edited is where the source has the word.
        heat = torch.as_tensor(sum(_resized(layer, prompt, chosen, size) for layer in layers.values()))
        mask |= heat > threshold * heat.max()
    return mask


def _resized(
    layer: CapturedLayer, prompt_index: int, chosen: Sequence[int], size: tuple[int, int]
) -> torch.Tensor:
    """One layer's map of some tokens, on the latents' grid."""
    array = np.take(layer.attention, prompt_index, axis=layer.dims.index("prompt"))
    dims = [name for name in layer.dims if name != "prompt"]
    array = np.take(array, chosen, axis=dims.index("token"))
    heat = array.mean(axis=tuple(i for i, name in enumerate(dims) if name not in ("row", "column")))
    grown = max_pool2d(torch.from_numpy(heat)[None, None], kernel_size=3, stride=1, padding=1)
    return interpolate(grown, size=size, mode="bilinear", align_corners=False)[0, 0]
