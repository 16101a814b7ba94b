"""The embeddings that condition one pipeline call, and the guidance branch of each row of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attnviz.errors import CaptureError


@dataclass(frozen=True)
class Branches:
    """Conditional and, with guidance, unconditional rows of a denoiser batch."""

    conditional: slice
    unconditional: slice | None


@dataclass(frozen=True)
class Conditioning:
    """Embeddings that a pipeline call passes to its U-Net, known before the first denoiser call.

    Attributes
    ----------
    prompt_embeds : torch.Tensor, shape (prompts x images x draws, keys, width)
        Conditional embeddings. Images of one prompt are adjacent, and so are draws of one image. The tensor is
        copied, because a callback may change the pipeline's tensor in place.
    negative_prompt_embeds : torch.Tensor or None
        Unconditional embeddings of the same shape; None without guidance.
    prompts : int
        Number of prompts.
    positions : sequence of int
        Key positions whose attention is kept, ascending.
    draws : int
        Rows of the batch that hold the same image under different noise. Their attention is averaged.
    guidance : tuple of str
        Order of the rows of a guided call; ``("conditional",)`` where guidance makes calls of its own.
    first_key : int
        Keys of a prompt that stand before the prompt's embeddings in what the denoiser gets.
    """

    prompt_embeds: torch.Tensor
    negative_prompt_embeds: torch.Tensor | None
    prompts: int
    positions: Sequence[int]
    draws: int = 1
    guidance: tuple[str, ...] = ("unconditional", "conditional")
    first_key: int = 0

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

    def branches(self, encoder_hidden_states: torch.Tensor) -> Branches | None:
        """Find the conditional rows of a batch by comparing them with the known embeddings.

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
            f"The denoiser was called with embeddings of shape {tuple(encoder_hidden_states.shape)}, which are "
            f"neither the prompt's {tuple(self.prompt_embeds.shape)} alone nor the unconditional ones followed by "
            "the prompt's, so which rows are conditional is not known. Did something other than the traced "
            "pipeline call the U-Net, or were the embeddings changed by a callback?"
        )


@dataclass(frozen=True)
class PromptConditioning(Conditioning):
    """Embeddings of the prompt alone; what a call holds beside them is told from them by comparison."""

    def branches(self, encoder_hidden_states: torch.Tensor) -> Branches | None:
        """Identify the conditional rows of a batch; None where a guided step calls without any.

        Raises
        ------
        CaptureError
            If the prompt's embeddings are not where the family puts them.
        """
        rows, keys = self.prompt_embeds.shape[:2]
        held = encoder_hidden_states[:, self.first_key : self.first_key + keys]
        parts = len(held) // rows if len(held) % rows == 0 else 0
        same = [_same(part, self.prompt_embeds) for part in held.split(rows)] if parts else []
        if parts == 1 and same[0]:
            return Branches(slice(0, rows), None)
        if parts == 1 and self.guidance == ("conditional",):
            return None
        at = self.guidance.index("conditional")
        if parts == 2 == len(self.guidance) and same[at]:
            other = 1 - at
            return Branches(slice(at * rows, (at + 1) * rows), slice(other * rows, (other + 1) * rows))
        raise CaptureError(
            f"The denoiser was called with embeddings of shape {tuple(encoder_hidden_states.shape)}, which do not "
            f"hold the prompt's {tuple(self.prompt_embeds.shape)} where its family has conditional rows "
            f"({', '.join(self.guidance)}). Did something other than the traced pipeline call the denoiser, or "
            "were the embeddings changed by a callback?"
        )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b.to(a))
