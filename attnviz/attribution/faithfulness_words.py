"""The prediction of a denoiser as a function of the words of its caption."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch

from attnviz.arguments import public
from attnviz.attribution.clip_views import ClipViews
from attnviz.attribution.method import Event, checked_event, checked_size, event_mask
from attnviz.attribution.players import Phrase, Player, players_of
from attnviz.attribution.settings import TIMESTEPS
from attnviz.attribution.texts import Removal, check_removal, energy
from attnviz.audio.files import AudioSource
from attnviz.errors import CaptureError, MapsError
from attnviz.maps import AttentionMaps
from attnviz.maps.settling import Readout

ROUNDING = 1e-10
"""Change of the prediction, relative to its energy, that is of rounding: batches of other sizes differ by it."""

Target = Literal["guidance", "change"]


@public
class WordAblation:
    """What a model predicts for a clip, as a function of which words its caption has.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline of Stable Diffusion's anatomy.
    audio : path, array or tensor
        The clip, as for `attnviz.explain`.
    caption : str
    sampling_rate : int, optional
        Sampling rate of an array in Hz; default: 16 000.
    phrases : sequence of str or (int, int), optional
        Phrases of the caption that count as one player. Each other word is a player of its own.
    removal : {"words", "keys"}
        How words are left out; see `LeaveOneOut`.
    target : {"guidance", "change"}
        ``"guidance"``: energy of the difference from the prediction without text, relative to that of the caption:
        0 without words, 1 with all. ``"change"``: 1 less the energy of the difference from the prediction for the
        caption, relative to that without words: also 0 without words and 1 with all, but it asks for the caption's
        own prediction, not only for one far from the unconditional.
    event : (float, float) or (float, float, float, float), optional
        Onset and offset in seconds, and lowest and highest frequency in Hz: only these cells count, in the
        prediction and in the maps. Default: all cells of the clip.
    timesteps, draws, seed, normalize
        Noise, as for `attnviz.explain`.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.

    Attributes
    ----------
    players : tuple of str
        Words and phrases, in the order of the caption.

    Raises
    ------
    AttnVizError
        As `attnviz.explain`.

    Notes
    -----
    Each set of words is predicted once and remembered, so one object serves to compare many methods. A model that
    does not listen to its text has the target 0 for every set (``"guidance"``) or 1 (``"change"``).
    """

    def __init__(
        self,
        pipe: Any,
        audio: AudioSource,
        caption: str,
        *,
        sampling_rate: int | None = None,
        phrases: Sequence[Phrase] | None = None,
        removal: Removal = "words",
        target: Target = "guidance",
        event: Event | None = None,
        timesteps: Sequence[int] = TIMESTEPS,
        draws: int = 4,
        seed: int = 0,
        normalize: bool = True,
        internal_batch_size: int = 32,
    ) -> None:
        check_removal(removal)
        _check_target(target)
        self._size = checked_size(internal_batch_size)
        self._views = ClipViews.of(
            pipe, audio, caption, sampling_rate=sampling_rate, timesteps=timesteps, draws=draws, seed=seed,
            normalize=normalize,
        )  # fmt: skip
        grid = self._views.grid
        self._event = event
        if event is not None:
            checked_event(event, grid.seconds if grid.audio_seconds is None else grid.audio_seconds)
        self._removal = removal
        self._target: Target = target
        self._players = players_of(self._views.texts.tokens, phrases)
        self._inside = [torch.from_numpy(self._cells(window)) for window in range(len(self._views.views))]
        if not any(bool(inside.any()) for inside in self._inside):
            raise CaptureError(f"event={event!r} covers no cell of the latents; use a longer or a wider one.")
        self._known: dict[frozenset[int], tuple[float, float]] = {}
        self._energy = [0.0]  # largest of the caption's predictions so far

    @property
    def players(self) -> tuple[str, ...]:
        """Words and phrases, in the order of the caption."""
        return tuple(player.text for player in self._players)

    @public
    def with_target(self, target: Target) -> WordAblation:
        """Return the same words with another target, which shares all predictions.

        Raises
        ------
        CaptureError
            If the target is unknown.
        """
        _check_target(target)
        other = copy.copy(self)
        other._target = target
        return other

    @public
    def __call__(self, coalitions: Sequence[Collection[int]]) -> torch.Tensor:
        """Return the target for each set of kept words, given by their indices in `players`.

        Returns
        -------
        torch.Tensor, shape (coalitions,), float64
        """
        wanted = [frozenset(each) for each in coalitions]
        if beyond := [each for one in wanted for each in one if not 0 <= each < len(self._players)]:
            raise CaptureError(f"{beyond[0]} is no index of the {len(self._players)} words: {self.players}.")
        everyone, nobody = frozenset(range(len(self._players))), frozenset[int]()
        missing = [one for one in dict.fromkeys([everyone, nobody, *wanted]) if one not in self._known]
        if missing:
            self._known |= dict(zip(missing, self._predicted(missing), strict=True))
        column = 0 if self._target == "guidance" else 1
        whole = self._known[everyone][0] if column == 0 else self._known[nobody][1]
        found = torch.tensor([self._known[one][column] for one in wanted], dtype=torch.float64)
        relative = found / whole if whole > ROUNDING * self._energy[0] else torch.zeros_like(found)
        return relative if column == 0 else 1 - relative

    @public
    def scores(self, maps: AttentionMaps, *, readout: Readout = "mean") -> np.ndarray:
        """Return the score of each word: the mean of its map over the clip, or over the cells of the event.

        Parameters
        ----------
        maps : AttentionMaps
            Maps of the same clip and caption, by any method.
        readout : str or FittedReadout
            As for `AttentionMaps.heatmap`.

        Returns
        -------
        numpy.ndarray, shape (players,), float64

        Raises
        ------
        MapsError
            If the maps are of another caption, or have no cell in the event.
        """
        caption = self._views.texts.tokens.prompt
        if maps.prompts != [caption]:
            raise MapsError(f"The maps are of {maps.prompts!r}, but words are left out of {caption!r}.")
        return np.array([self._score(maps, player, readout) for player in self._players])

    @public
    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """Draw an order of the words at random, as scores."""
        return generator.permutation(len(self._players)).astype(np.float64)

    def _score(self, maps: AttentionMaps, player: Player, readout: Readout) -> float:
        heat = maps.heatmap((player.spans[0][0], player.spans[-1][1]), readout=readout)
        inside = ~heat["padding"]
        if self._event is not None:
            onset, offset, low, high = checked_event(self._event, self._views.grid.seconds)
            inside = inside & (heat["time"] >= onset) & (heat["time"] < offset)
            if "freq" in heat.dims:
                inside = inside & (heat["freq"] >= low) & (heat["freq"] <= high)
        if not bool(inside.any()):
            raise MapsError(f"The maps have no cell in event={self._event!r}: their columns are wider.")
        return float(heat.where(inside).mean())

    def _cells(self, window: int) -> np.ndarray:
        rows, columns = self._views.shape
        heard = np.broadcast_to(self._views.heard(window), (rows, columns))
        return heard & event_mask(self._event, self._views, (rows, columns), window)

    @torch.no_grad()
    def _predicted(self, coalitions: Sequence[frozenset[int]]) -> list[tuple[float, float]]:
        """Return the energies of the differences from the prediction without text, and from the caption's."""
        texts = self._views.texts
        everyone = range(len(self._players))
        removed = [[self._players[each] for each in everyone if each not in one] for one in coalitions]
        states = texts.without(removed, self._removal)
        both = np.zeros((len(coalitions), 2))
        try:
            for views, inside in zip(self._views.views, self._inside, strict=True):
                for samples, timestep in views:
                    ends = texts.predictions(
                        samples, timestep, torch.cat([texts.null, texts.caption]), size=self._size
                    )
                    found = texts.predictions(samples, timestep, states, size=self._size)
                    whole = float(energy(ends[1:])[:, inside.to(ends.device)].sum())
                    self._energy[0] = max(self._energy[0], whole)
                    for column, end in enumerate(ends):
                        both[:, column] += energy(found - end)[:, inside.to(found.device)].sum(-1).cpu().numpy()
        finally:
            texts.pipe.maybe_free_model_hooks()
        if not np.isfinite(both).all():
            raise CaptureError(
                "The prediction is NaN or infinite. In float16, this is an overflow (try bfloat16 or float32). "
                "Otherwise a weight of the checkpoint is not finite."
            )
        return [(float(one), float(other)) for one, other in both]


def _check_target(target: Any) -> None:
    if target not in get_args(Target):
        raise CaptureError(f"target={target!r} is unknown; expected one of {', '.join(get_args(Target))}.")
