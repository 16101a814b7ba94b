"""Methods that leave words out: the change of the prediction, and its guidance energy shared out over words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from attnviz.arguments import public, whole_number
from attnviz.attribution.method import Asked, Attribution, checked_size, on_tokens
from attnviz.attribution.players import Phrase, Player, players_of
from attnviz.attribution.shapley_values import EXACT, Coalition, shapley_values
from attnviz.attribution.texts import Removal, Texts, check_removal, energy
from attnviz.capture import CapturedLayer
from attnviz.diffusion.noising import Predict, View
from attnviz.errors import CaptureError
from attnviz.models.families import Family


@public
@dataclass(frozen=True)
class LeaveOneOut(Attribution):
    """How much the prediction changes in each cell if a word is left out: the energy of the difference.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    phrases : sequence of str or (int, int), optional
        Phrases of the caption that are left out as a whole. Each other word is left out by itself.
    removal : {"words", "keys"}
        ``"words"``: the sentence is encoded anew without the word, which is causal. ``"keys"``: the keys of its
        tokens are replaced by padding, which isolates these keys; the other tokens, which were encoded with the
        word, stay. Other families than Stable Diffusion's have ``"words"`` alone.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.

    Notes
    -----
    MusicGen predicts codes. There, the maps are the log-probability of the clip's codes with the word, less that
    without it, in nats for each frame: they have a sign.
    """

    name: ClassVar[str] = "leave_one_out"
    quantity: ClassVar[str] = "change of the prediction without the word (energy)"

    phrases: Sequence[Phrase] | None = None
    removal: Removal = "words"
    internal_batch_size: int = 32

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid."""
        super().check(keep)
        check_removal(self.removal)
        checked_size(self.internal_batch_size)

    def check_family(self, family: Family) -> None:
        """Accept every family: a caption can be passed to all of them."""

    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Compare the predictions with and without each player."""
        texts, players = asked.texts, players_of(asked.tokens, self.phrases)
        states = texts.without([[player] for player in players], self.removal)
        found = []
        for samples, timestep in views:
            whole = texts.arranged(predict(samples, timestep))
            changed = texts.predictions(samples, timestep, states, size=self.internal_batch_size)
            found.append(energy(changed - whole))
        asked.record["players"] = [player.text for player in players]
        return on_tokens(asked, players, found)


@public
@dataclass(frozen=True)
class Shapley(Attribution):
    """The guidance energy of each cell, shared out over the words: their Shapley values.

    The guidance energy is that of the difference between the predictions with and without text.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    phrases : sequence of str or (int, int), optional
        Phrases of the caption that count as one player. Each other word is a player of its own.
    removal : {"words", "keys"}
        What a coalition without a word is; see `LeaveOneOut`. With ``"words"``, the coalition without any word is
        the unconditional text, and the words share the whole energy. With ``"keys"``, it is the caption's frame
        (start and end tokens) with padding, whose energy the start token has; words and frame share the whole.
    permutations : int
        Orders in which players join, for captions of more than 6 players: an even number. Up to 6 players, all
        coalitions are evaluated and the values are exact.
    permutation_seed : int
        Seed of the permutations.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.

    Notes
    -----
    In each cell, the maps of the words sum to the guidance energy, also with permutations. `provenance` has the
    relative error of this sum, which is of rounding only.

    References: see `attnviz.attribution.shapley_values`.
    """

    name: ClassVar[str] = "shapley"
    quantity: ClassVar[str] = "share of the guidance energy"
    signed: ClassVar[bool] = True

    phrases: Sequence[Phrase] | None = None
    removal: Removal = "words"
    permutations: int = 16
    permutation_seed: int = 0
    internal_batch_size: int = 32

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid."""
        super().check(keep)
        check_removal(self.removal)
        checked_size(self.internal_batch_size)
        whole_number("permutation_seed", self.permutation_seed, least=0, most=2**32 - 1, error=CaptureError)
        if whole_number("permutations", self.permutations, least=2, most=1 << 16, error=CaptureError) % 2:
            raise CaptureError(
                f"permutations={self.permutations} is odd; each order is followed by its reverse, so their number "
                "is even."
            )

    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Share the guidance energy out at each view."""
        texts, players = asked.texts, players_of(asked.tokens, self.phrases)
        values, frames, errors = [], [], []
        for samples, timestep in views:
            game = _Guidance(self, texts, players, (samples, timestep), predict(samples, timestep))
            shares = shapley_values(game, len(players), permutations=self.permutations, seed=self.permutation_seed)
            error = (shares.sum(0) + game.frame - game.whole).abs().amax() / game.whole.abs().amax().clamp(
                min=1e-30
            )
            errors.append(float(error))
            values.append(shares)
            frames.append(game.frame)
        asked.record.update(
            {
                "players": [player.text for player in players],
                "exact": len(players) <= EXACT,
                "efficiency_error": max(errors),
            }
        )
        return on_tokens(asked, players, values, frames)


class _Guidance:
    """The guidance energy of each coalition of words, in each cell, at one view."""

    def __init__(
        self, method: Shapley, texts: Texts, players: list[Player], view: View, whole: torch.Tensor
    ) -> None:
        self._method, self._texts, self._players = method, texts, players
        self._view = view
        self._null = texts.predictions(*view, texts.null, size=method.internal_batch_size)
        self.whole = energy(whole[None] - self._null)[0].double()
        self.frame = torch.zeros_like(self.whole)

    def __call__(self, coalitions: Sequence[Coalition]) -> torch.Tensor:
        everyone = range(len(self._players))
        removed = [[self._players[each] for each in everyone if each not in one] for one in coalitions]
        states = self._texts.without(removed, self._method.removal)
        predictions = self._texts.predictions(*self._view, states, size=self._method.internal_batch_size)
        values = energy(predictions - self._null)
        if self._method.removal == "words":
            values[[not one for one in coalitions]] = 0.0
        else:
            self.frame = values[list(coalitions).index(frozenset())].double()
        return values
