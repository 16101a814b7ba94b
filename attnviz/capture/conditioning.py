"""What one pipeline call conditions its denoiser on, and which rows of a batch are which branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attnviz.errors import CaptureError


@dataclass(frozen=True)
class Branches:
    """Rows of a denoiser batch: the conditional ones, and the unconditional ones where there are any."""

    conditional: slice
    unconditional: slice | None


@dataclass(frozen=True)
class Conditioning:
    """The embeddings a pipeline call hands to its U-Net, known before the first denoiser call.

    Attributes
    ----------
    prompt_embeds : torch.Tensor, shape (prompts x images x draws, keys, width)
        Conditional embeddings; the images of one prompt stand together, and so do the draws of one image. Copied
        as they are, for a callback may change the pipeline's in place.
    negative_prompt_embeds : torch.Tensor or None
        Unconditional embeddings of the same shape; None without guidance.
    prompts : int
        Number of prompts.
    positions : sequence of int
        Key positions whose attention is kept, ascending.
    draws : int
        Rows of the batch that are the same image under different noise; their attention is averaged as it
        comes.
    """

    prompt_embeds: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None
    prompts: int
    positions: Sequence[int]
    draws: int = 1

    def __post_init__(self) -> None:
        for name, embeds in (("prompt", self.prompt_embeds), ("negative prompt", self.negative_prompt_embeds)):
            if embeds is not None and not bool(torch.isfinite(embeds).all()):
                raise CaptureError(
                    f"The embeddings of the {name} hold NaN or infinite values. A weight of the text encoder or "
                    "its adapter is not finite, or float16 overflowed (try bfloat16 or float32)."
                )
        object.__setattr__(self, "prompt_embeds", self.prompt_embeds.detach().clone())
        if self.negative_prompt_embeds is not None:
            object.__setattr__(self, "negative_prompt_embeds", self.negative_prompt_embeds.detach().clone())

    @property
    def images_per_prompt(self) -> int:
        """Images generated for each prompt."""
        return self.prompt_embeds.shape[0] // (self.prompts * self.draws)

    def branches(self, encoder_hidden_states: torch.Tensor) -> Branches:
        """Tell which rows of a batch are conditional, by comparing them with the known embeddings.

        Raises
        ------
        CaptureError
            If the rows are neither the prompt's embeddings alone nor the unconditional ones followed
            by the prompt's.
        """
        rows = self.prompt_embeds.shape[0]
        if _same(encoder_hidden_states, self.prompt_embeds):
            return Branches(slice(0, rows), None)
        if (
            self.negative_prompt_embeds is not None
            and len(encoder_hidden_states) == 2 * rows
            and _same(encoder_hidden_states[rows:], self.prompt_embeds)
            and _same(encoder_hidden_states[:rows], self.negative_prompt_embeds)
        ):
            return Branches(slice(rows, 2 * rows), slice(0, rows))
        raise CaptureError(
            f"The denoiser was called with embeddings of shape {tuple(encoder_hidden_states.shape)} that are "
            f"not those of the prompt ({tuple(self.prompt_embeds.shape)}), alone or after the unconditional "
            "ones, so which rows are conditional is not known. Was the U-Net called by something else than "
            "the traced pipeline, or were the embeddings changed by a callback?"
        )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b.to(a))
