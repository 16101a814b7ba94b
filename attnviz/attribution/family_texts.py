"""Predictions of a family's denoiser for other captions, each passed as its own pipeline would pass it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from attnviz.attribution.denoising import Denoising
from attnviz.attribution.players import Player, without
from attnviz.attribution.texts import Removal
from attnviz.errors import AttnVizWarning, CaptureError, PromptError
from attnviz.models.families import Family
from attnviz.text.tokens import TokenTable


@dataclass(frozen=True)
class CaptionTexts:
    """A denoiser as a function of its caption.

    Attributes
    ----------
    tokens : TokenTable
        Tokens of the caption.
    family : Family
    denoising : callable
        Maps a caption to the denoiser with that caption.
    aside : callable
        Makes a context manager for the calls of the denoiser that are made here.
    """

    tokens: TokenTable
    family: Family
    denoising: Callable[[str], Denoising]
    aside: Callable[[], AbstractContextManager[Any]]

    def without(self, removed: Sequence[Collection[Player]], removal: Removal) -> list[str]:
        """Return the caption without some players, for each collection of players.

        Raises
        ------
        CaptureError
            If keys are to be replaced.
        PromptError
            If no word is left.
        """
        if removal != "words":
            raise CaptureError(
                f"removal='keys' replaces keys by padding, which {self.family.name} masks, packs or encodes in "
                "ways of its own. Use removal='words'."
            )
        captions = [without(self.tokens.prompt, players) for players in removed]
        if not all(captions):
            raise PromptError(
                f"The caption {self.tokens.prompt!r} is empty without one of its phrases, and there is no "
                f"prediction of {self.family.name} without a caption. Use a caption of several words."
            )
        return captions

    def predictions(
        self, samples: torch.Tensor, timestep: int, states: Sequence[str], *, size: int
    ) -> torch.Tensor:
        """Return the predictions for some captions: (captions, draws, channels, rows, columns)."""
        with self.aside(), warnings.catch_warnings():
            warnings.simplefilter("ignore", AttnVizWarning)
            return torch.stack([self.arranged(self.denoising(caption)(samples, timestep)) for caption in states])

    def arranged(self, prediction: torch.Tensor) -> torch.Tensor:
        """Return a prediction (draws, ...) as (draws, channels, rows, columns), with the highest frequency first.

        Latents without frequency have one row.
        """
        queries = self.family.queries
        if not queries.has_freq:
            return prediction.movedim(queries.axis, -1).flatten(1, -2).unsqueeze(2)
        if queries.order == ("time", "freq"):
            prediction = prediction.transpose(-1, -2)
        return prediction.flip(-2) if queries.first_row == "lowest" else prediction
