"""Predictions of a denoiser for other texts than the caption: words left out, keys replaced, no text at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from attnviz.attribution.batches import in_batches
from attnviz.attribution.players import Player, without
from attnviz.errors import AttnVizWarning, CaptureError
from attnviz.text.tokens import TokenTable

Removal = Literal["words", "keys"]
REMOVALS = ("words", "keys")


@dataclass(frozen=True)
class Texts:
    """A denoiser as a function of its text embeddings.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline of Stable Diffusion's anatomy.
    tokens : TokenTable
        Tokens of the caption.
    caption : torch.Tensor, shape (1, keys, width)
        Embeddings of the caption.
    null : torch.Tensor, shape (1, keys, width)
        Embeddings of the unconditional branch.
    aside : callable, optional
        Makes a context manager for the calls of the denoiser that are made here.
    """

    pipe: Any
    tokens: TokenTable
    caption: torch.Tensor
    null: torch.Tensor
    aside: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(cls, pipe: Any, tokens: TokenTable, caption: torch.Tensor, **more: Any) -> Texts:
        """Return the texts of a pipeline for a caption whose embeddings are known.

        Raises
        ------
        CaptureError
            If the pipeline has no unconditional embeddings.
        """
        _, null = pipe.encode_prompt(tokens.prompt, pipe._execution_device, 1, True)
        if null is None or null.shape != caption.shape:
            raise CaptureError(
                f"{type(pipe).__name__} has no unconditional embeddings of the shape {tuple(caption.shape)}, so "
                "the prediction without text is not known."
            )
        return cls(pipe, tokens, caption, null, **more)

    def encoded(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the embeddings (texts, keys, width) of some texts; an empty text has those without text."""
        states: dict[str, torch.Tensor] = {"": self.null[0], self.tokens.prompt: self.caption[0]}
        distinct = [text for text in dict.fromkeys(texts) if text not in states]
        if distinct:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AttnVizWarning)  # a text without words may name no known sound
                keys, _ = self.pipe.encode_prompt(distinct, self.pipe._execution_device, 1, False)
            states |= dict(zip(distinct, keys, strict=True))
        return torch.stack([states[text] for text in texts])

    def without(self, removed: Sequence[Collection[Player]], removal: Removal) -> torch.Tensor:
        """Return the embeddings of the caption without some players, for each collection of players.

        Parameters
        ----------
        removed : sequence of collections of Player
        removal : {"words", "keys"}
            ``"words"``: the sentence without the words, encoded anew. Without any word, it is the unconditional
            text. ``"keys"``: the keys of the words, replaced by padding; all other keys stay.

        Returns
        -------
        torch.Tensor, shape (collections, keys, width)
        """
        if removal == "words":
            return self.encoded([without(self.tokens.prompt, players) for players in removed])
        padding = self.padding
        states = self.caption.repeat(len(removed), 1, 1)
        for state, players in zip(states, removed, strict=True):
            at = [position for player in players for position in player.positions]
            state[at] = padding[at]
        return states

    @property
    def padding(self) -> torch.Tensor:
        """Key of padding at each position, (keys, width): the last key of the same encoder in an empty text."""
        conditioner = getattr(self.pipe, "conditioner", None)
        empty = self.null[0] if conditioner is None else conditioner.encode([""], warn=False, allow_empty=True)[0]
        rows = self.tokens.rows
        last = rows.groupby("encoder")["position"].max()
        return empty.to(self.caption)[last.loc[rows["encoder"]].to_list()]

    def predictions(
        self, samples: torch.Tensor, timestep: int, states: torch.Tensor, *, size: int
    ) -> torch.Tensor:
        """Return the predictions for some texts.

        Parameters
        ----------
        samples : torch.Tensor, shape (draws, ...) or (texts, draws, ...)
            Noisy latents, the same for all texts or of each.
        timestep : int
        states : torch.Tensor, shape (texts, keys, width)
        size : int
            Rows of a batch.

        Returns
        -------
        torch.Tensor, shape (texts, draws, ...), float32
        """
        each = samples if samples.ndim == 5 else samples.expand(len(states), *samples.shape)
        draws = each.shape[1]

        def compute(some: slice) -> torch.Tensor:
            found = self.predict(each[some].flatten(0, 1), timestep, states[some].repeat_interleave(draws, dim=0))
            return found.unflatten(0, (-1, draws))

        return in_batches(compute, len(states), max(1, size // draws))

    def arranged(self, prediction: torch.Tensor) -> torch.Tensor:
        """Return a prediction (draws, channels, rows, columns) as it is: its first row is the highest."""
        return prediction

    def predict(self, samples: torch.Tensor, timestep: int, states: torch.Tensor) -> torch.Tensor:
        """Return the prediction of each row, float32, in one batch.

        Parameters
        ----------
        samples : torch.Tensor, shape (rows, ...)
        timestep : int
        states : torch.Tensor, shape (rows, keys, width), or (1, keys, width) for all rows
        """
        unet = self.pipe.unet
        keys = states.to(unet.dtype).expand(len(samples), -1, -1)
        with self.aside():
            found = unet(samples.to(unet.dtype), timestep, encoder_hidden_states=keys, return_dict=False)
        return found[0].float()


def energy(predictions: torch.Tensor) -> torch.Tensor:
    """Return the energy in each cell, averaged over draws.

    Parameters
    ----------
    predictions : torch.Tensor, shape (texts, draws, channels, rows, columns)

    Returns
    -------
    torch.Tensor, shape (texts, rows, columns)
        Sum over channels of the squares.
    """
    return predictions.square().sum(dim=2).mean(dim=1)


def check_removal(removal: Any) -> None:
    """Raise unless a way to leave words out is known.

    Raises
    ------
    CaptureError
        With the known ones.
    """
    if removal not in REMOVALS:
        raise CaptureError(
            f"removal={removal!r} is unknown; expected 'words' (the sentence encoded anew) or 'keys' (keys "
            "replaced by padding)."
        )
