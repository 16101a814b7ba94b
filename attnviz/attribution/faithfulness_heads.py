"""The prediction of a denoiser as a function of which heads attend to a phrase: ordered weakening of heads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from attnviz.arguments import public
from attnviz.attribution.batches import in_batches
from attnviz.attribution.clip_views import ClipViews
from attnviz.attribution.faithfulness_words import ROUNDING
from attnviz.attribution.method import checked_size
from attnviz.attribution.players import Phrase
from attnviz.attribution.settings import TIMESTEPS
from attnviz.attribution.texts import energy
from attnviz.audio.files import AudioSource
from attnviz.capture import held
from attnviz.capture.weakening import Head, WeakenedHeads, heads_of
from attnviz.errors import CaptureError, MapsError
from attnviz.maps import AttentionMaps
from attnviz.models.families import STABLE_DIFFUSION


@public
class HeadAblation:
    """What is left of a phrase's effect on the prediction, as a function of which heads attend to it.

    Attention of all other heads to the phrase is weakened. The target is 1 less the energy of the change of the
    prediction, relative to that with all heads weakened: 1 if no head is weakened, 0 if all are.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline of Stable Diffusion's anatomy.
    audio : path, array or tensor
        The clip, as for `attnviz.explain`.
    caption : str
    phrase : str or (int, int)
        Phrase of the caption.
    sampling_rate : int, optional
        Sampling rate of an array in Hz; default: 16 000.
    factor : float
        Factor on the attention of weakened heads to the phrase's tokens.
    timesteps, draws, seed, normalize
        Noise, as for `attnviz.explain`.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.

    Attributes
    ----------
    players : tuple of str
        Heads: name of the layer, and number.

    Raises
    ------
    AttnVizError
        As `attnviz.explain`.

    Notes
    -----
    `deletion_insertion` gives the ordered weakening: its deletion weakens the heads of highest score first, and
    its insertion, read from its end, those of lowest score first.

    References: Park et al., Cross-Attention Head Position Patterns Can Align with Human Visual Concepts in
    Text-to-Image Generative Models (arXiv 2412.02237). Differences from the original: the change of the prediction
    is measured, not that of generated images, and attention is scaled by `factor`, by default 0.
    """

    def __init__(
        self,
        pipe: Any,
        audio: AudioSource,
        caption: str,
        phrase: Phrase,
        *,
        sampling_rate: int | None = None,
        factor: float = 0.0,
        timesteps: Sequence[int] = TIMESTEPS,
        draws: int = 4,
        seed: int = 0,
        normalize: bool = True,
        internal_batch_size: int = 32,
    ) -> None:
        self._size = checked_size(internal_batch_size)
        if not np.isfinite(float(factor)) or float(factor) == 1:
            raise CaptureError(f"factor={factor!r} weakens nothing; a finite number other than 1 is needed.")
        self._views = ClipViews.of(
            pipe, audio, caption, sampling_rate=sampling_rate, timesteps=timesteps, draws=draws, seed=seed,
            normalize=normalize,
        )  # fmt: skip
        self._pipe, self._phrase, self._factor = pipe, phrase, float(factor)
        self._positions = self._views.texts.tokens.find(phrase).tolist()
        self._heads = heads_of(pipe.unet, STABLE_DIFFUSION)
        self._known: dict[frozenset[int], float] = {}
        self._energy = 0.0  # of the prediction

    @property
    def players(self) -> tuple[str, ...]:
        """Heads: name of the layer, and number."""
        return tuple(f"{layer}, head {head}" for layer, head in self._heads)

    @public
    def __call__(self, coalitions: Sequence[Collection[int]]) -> torch.Tensor:
        """Return the target for each set of heads that keep their attention, by index in `players`.

        Returns
        -------
        torch.Tensor, shape (coalitions,), float64
        """
        wanted = [frozenset(each) for each in coalitions]
        nobody = frozenset[int]()
        missing = [one for one in dict.fromkeys([nobody, *wanted]) if one not in self._known]
        if missing:
            self._known |= dict(zip(missing, self._changes(missing), strict=True))
        whole = self._known[nobody]
        found = torch.tensor([self._known[one] for one in wanted], dtype=torch.float64)
        return 1 - (found / whole if whole > ROUNDING * self._energy else torch.zeros_like(found))

    @public
    def scores(self, maps: AttentionMaps) -> np.ndarray:
        """Return the score of each head: the mean of its map of the phrase over the clip.

        Parameters
        ----------
        maps : AttentionMaps
            Maps of the same caption with ``keep=("head",)``.

        Returns
        -------
        numpy.ndarray, shape (players,), float64

        Raises
        ------
        MapsError
            If the maps are of another caption, or have no heads.
        """
        if maps.prompts != [self._views.texts.tokens.prompt]:
            raise MapsError(
                f"The maps are of {maps.prompts!r}, but the text is {self._views.texts.tokens.prompt!r}."
            )
        layers = dict.fromkeys(layer for layer, _ in self._heads)
        if lacking := [name for name in layers if name not in maps.layers or "head" not in maps[name].dims]:
            raise MapsError(
                f"The maps have no heads of {lacking[0]}. Explain with keep=('head',), by a method that reads the "
                "heads of all layers: attention, value or gradient."
            )
        found = {name: self._of_heads(maps, name) for name in layers}
        return np.array([found[layer][head] for layer, head in self._heads])

    @public
    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """Draw an order of the heads at random, as scores."""
        return generator.permutation(len(self._heads)).astype(np.float64)

    def _of_heads(self, maps: AttentionMaps, name: str) -> np.ndarray:
        layer = maps[name].isel(prompt=0)
        layer = layer.isel(token=np.isin(maps.positions, self._positions))
        layer = layer.where(~layer["padding"])
        return layer.mean([dim for dim in layer.dims if dim != "head"]).to_numpy().astype(np.float64)

    @torch.no_grad()
    def _changes(self, coalitions: Sequence[frozenset[int]]) -> list[float]:
        """Return the energy of the change of the prediction for each set of heads that keep their attention."""
        texts = self._views.texts
        weakened: list[list[Head]] = [
            [head for number, head in enumerate(self._heads) if number not in kept] for kept in coalitions
        ]
        found = np.zeros(len(coalitions))
        try:
            for window, views in enumerate(self._views.views):
                inside = torch.from_numpy(self._views.heard(window))
                for samples, timestep in views:
                    whole = texts.predict(samples, timestep, texts.caption)
                    self._energy = max(
                        self._energy, float(energy(whole[None])[..., inside.to(whole.device)].sum())
                    )
                    changed = self._predictions(samples, timestep, weakened)
                    found += energy(changed - whole)[..., inside.to(whole.device)].sum((1, 2)).cpu().numpy()
        finally:
            self._pipe.maybe_free_model_hooks()
        if not np.isfinite(found).all():
            raise CaptureError("The prediction with weakened heads is NaN or infinite.")
        return found.tolist()

    def _predictions(self, samples: torch.Tensor, timestep: int, weakened: Sequence[list[Head]]) -> torch.Tensor:
        texts, draws = self._views.texts, len(samples)
        acting = WeakenedHeads(self._pipe.unet, STABLE_DIFFUSION, self._positions, self._factor)

        def compute(some: slice) -> torch.Tensor:
            acting.rows = [heads for heads in weakened[some] for _ in range(draws)]
            rows = samples.repeat(len(acting.rows) // draws, *[1] * (samples.ndim - 1))
            return texts.predict(rows, timestep, texts.caption).unflatten(0, (-1, draws))

        with held(acting):
            return in_batches(compute, len(weakened), max(1, self._size // draws))
