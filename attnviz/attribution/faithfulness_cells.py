"""What the listener hears of a phrase if the text acts in some cells of the latents only: local guidance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from attnviz.arguments import public
from attnviz.attribution.clip_views import ClipViews
from attnviz.attribution.continuing import Continuing, check_continuing
from attnviz.attribution.heard import named_sounds
from attnviz.attribution.method import checked_size
from attnviz.attribution.players import Phrase, players_of
from attnviz.audio.files import AudioSource
from attnviz.errors import CaptureError, MapsError
from attnviz.maps import AttentionMaps
from attnviz.maps.layer import cells_of
from attnviz.maps.readouts import resample
from attnviz.maps.settling import Readout

_SMOOTH = 1 / 16
"""Width of the smoothing of random scores, relative to each axis: maps are smooth, too."""


@public
class CellAblation:
    """What the listener hears of a phrase if the text acts in some cells only.

    The generation is ended from the noisy clip with the local guidance ``eps_null + M s (eps_c - eps_null)``: the
    text acts where the mask M is 1. The judge is the bundled listener, with its probability of the sound that the
    phrase names, averaged over the frames of the clip.

    Parameters
    ----------
    pipe : AuffusionPipeline
    audio : path, array or tensor
        The clip, at most one window (10.24 s).
    caption : str
    phrase : str or (int, int)
        Phrase of the caption that names a sound of the listener.
    sampling_rate : int, optional
        Sampling rate of an array in Hz; default: 16 000.
    timestep : int
        Timestep from which the generation goes on. From a low one, the clip itself decides what is heard.
    num_inference_steps : int
        Denoising steps from there.
    guidance_scale : float, optional
        By default, what the checkpoint recommends.
    draws, seed, normalize
        Noise, as for `attnviz.explain`. The probability is the mean over draws.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.

    Attributes
    ----------
    players : tuple of str
        Names of the cells.

    Raises
    ------
    AttnVizError
        As `attnviz.explain`; if the phrase names no sound of the listener, or the clip is longer than a window.

    Notes
    -----
    Each mask is generated once and remembered. Convolutions and self-attention carry the text's effect beyond the
    mask, so that a mask of few cells may already be heard.

    `scores`, `energy_scores` and `random_scores` rank the cells by a map, by the clip's spectrogram and by smooth
    noise: masks of the same area, which the map should beat.
    """

    def __init__(
        self,
        pipe: Any,
        audio: AudioSource,
        caption: str,
        phrase: Phrase,
        *,
        sampling_rate: int | None = None,
        timestep: int = 800,
        num_inference_steps: int = 10,
        guidance_scale: float | None = None,
        draws: int = 1,
        seed: int = 0,
        normalize: bool = True,
        internal_batch_size: int = 32,
    ) -> None:
        size = checked_size(internal_batch_size)
        check_continuing(pipe, num_inference_steps, guidance_scale, "CellAblation")
        self._views = ClipViews.of(
            pipe, audio, caption, sampling_rate=sampling_rate, timesteps=(timestep,), draws=draws, seed=seed,
            normalize=normalize,
        )  # fmt: skip
        if len(self._views.views) > 1:
            raise CaptureError(
                f"The clip lasts {self._views.grid.audio_seconds:.2f} s, and a generation is of one window, "
                "10.24 s. Cut it."
            )
        tokens = self._views.texts.tokens
        positions = set(tokens.find(phrase).tolist())
        player = next(one for one in players_of(tokens, [phrase]) if positions.intersection(one.positions))
        sounds, (named,) = named_sounds(caption, [player])
        if len(named) != 1:
            raise CaptureError(
                f"{player.text!r} names {len(named)} sounds of the listener; a phrase that names one is needed. "
                f"The caption names {', '.join(sounds)}."
            )
        self._sound = sounds[named[0]]
        self._phrase = (player.spans[0][0], player.spans[-1][1])
        self._going = Continuing.of(pipe, num_inference_steps, guidance_scale, size)
        self._known: dict[frozenset[int], float] = {}

    @property
    def players(self) -> tuple[str, ...]:
        """Names of the cells, the lowest frequency first, by row."""
        rows, columns = self._views.shape
        return tuple(f"row {row}, column {column}" for row in range(rows) for column in range(columns))

    @property
    def sound(self) -> str:
        """The listener's name of the sound of the phrase."""
        return self._sound

    @public
    def __call__(self, coalitions: Sequence[Collection[int]]) -> torch.Tensor:
        """Return the listener's probability for each set of cells in which the text acts.

        Returns
        -------
        torch.Tensor, shape (coalitions,), float64
            In [0, 1].
        """
        wanted = [frozenset(each) for each in coalitions]
        missing = [one for one in dict.fromkeys(wanted) if one not in self._known]
        if missing:
            self._known |= dict(zip(missing, self._listened(missing), strict=True))
        return torch.tensor([self._known[one] for one in wanted], dtype=torch.float64)

    @public
    def scores(self, maps: AttentionMaps, *, readout: Readout = "mean") -> np.ndarray:
        """Return the map of the phrase on the cells of the latents, as scores of the cells.

        Parameters
        ----------
        maps : AttentionMaps
            Maps of the same clip and caption, by any method.
        readout : str, FittedReadout or SharpReadout
            As for `AttentionMaps.heatmap`.

        Returns
        -------
        numpy.ndarray, shape (cells,), float64

        Raises
        ------
        MapsError
            If the maps are of another caption or of another length.
        """
        if maps.prompts != [self._views.texts.tokens.prompt]:
            raise MapsError(
                f"The maps are of {maps.prompts!r}, but the text is {self._views.texts.tokens.prompt!r}."
            )
        if maps.grid.seconds != self._views.grid.seconds:
            raise MapsError(
                f"The maps last {maps.grid.seconds:g} s, but the clip's window {self._views.grid.seconds:g} s."
            )
        heat = maps.heatmap(self._phrase, readout=readout)
        return self._ranked(resample(heat.to_numpy().astype(float), cells_of(heat, maps.grid), self._views.cells))

    @public
    def energy_scores(self) -> np.ndarray:
        """Return the energy of the clip's spectrogram in the cells of the latents, as scores."""
        mel = self._views.log_mel
        return self._ranked(resample(np.exp(2 * mel), self._views.grid.cells(*mel.shape), self._views.cells))

    @public
    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """Draw smooth noise as scores of the cells."""
        rows, columns = self._views.shape
        noise = generator.standard_normal((rows, columns))
        return self._ranked(gaussian_filter(noise, (rows * _SMOOTH, columns * _SMOOTH)))

    def _ranked(self, values: np.ndarray) -> np.ndarray:
        """Return scores of the cells; those of padding come last."""
        lowest = float(values.min()) - 1.0
        return np.where(self._views.heard(0), values, lowest).ravel().astype(np.float64)

    @torch.no_grad()
    def _listened(self, coalitions: Sequence[frozenset[int]]) -> list[float]:
        views = self._views
        rows, columns = views.shape
        masks = torch.zeros(len(coalitions), rows * columns, dtype=torch.bool)
        for mask, kept in zip(masks, coalitions, strict=True):
            mask[list(kept)] = True
        masks = masks.unflatten(1, (rows, columns)).flip(1)  # latents have the highest frequency first
        ((samples, timestep),) = views.views[0]
        states = views.texts.caption.expand(len(masks), -1, -1)
        try:
            latents = self._going.ended(views.texts, samples, timestep, states, masks.to(samples.device))
            frames = [self._going.heard(each, [self._sound])[0] for each in latents]
        finally:
            views.texts.pipe.maybe_free_model_hooks()
        seconds = self._views.grid.audio_seconds
        share = 1.0 if seconds is None else min(1.0, seconds / views.grid.seconds)
        return [float(each[: max(1, round(share * len(each)))].mean()) for each in frames]
