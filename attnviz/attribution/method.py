"""What every method of attribution is: made with a pipeline, asked about clips, and answering with maps."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from attnviz.arguments import public, whole_number
from attnviz.attribution.denoising import Denoising
from attnviz.attribution.players import Player
from attnviz.audio.files import AudioSource
from attnviz.audio.grid import SpectrogramGrid
from attnviz.capture import AttentionRecorder, CapturedLayer, Conditioning, Measure
from attnviz.capture.measures import MEASURES
from attnviz.diffusion.noising import Predict, View
from attnviz.errors import CaptureError
from attnviz.maps import AttentionMaps
from attnviz.models.families import Family
from attnviz.text.tokens import TokenTable

PREDICTION = "prediction"
"""Name of the layer of methods that read the denoiser's prediction: its cells are those of the latents."""

Event = tuple[float, ...]
"""Onset and offset in seconds, and, if there are four values, the lowest and highest frequency in Hz."""


@dataclass(frozen=True)
class Asked:
    """A caption, and how it is asked about.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
    denoising : Denoising
        Denoiser with the caption, and the tokens and embeddings of the caption.
    recorder : AttentionRecorder
        Recorder of the denoiser, which is not recording yet.
    grid : SpectrogramGrid
        Grid of the whole clip.
    factor : int
        Rows and columns of the grid per row and column of the latents.
    starts : sequence of int
        First column of the grid in each window.
    make_texts : callable
        Makes `texts`.
    record : dict
        What the method has measured, for provenance: a method adds to it.
    """

    pipe: Any
    denoising: Denoising
    recorder: AttentionRecorder
    grid: SpectrogramGrid
    factor: int
    starts: Sequence[int]
    make_texts: Callable[[], Any]
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> TokenTable:
        """Tokens of the caption."""
        return self.denoising.tokens

    @property
    def conditioning(self) -> Conditioning:
        """Embeddings of the caption, and the keys that are kept."""
        return self.denoising.conditioning

    @functools.cached_property
    def texts(self) -> Any:
        """The denoiser as a function of its text: `Texts`, or `CaptionTexts` of a family."""
        return self.make_texts()

    @property
    def keeps_steps(self) -> bool:
        """Whether timesteps are kept apart."""
        return "step" in self.recorder.keep


@dataclass(frozen=True)
class Attribution(ABC):
    """A method of attribution, in captum's manner: made once with a pipeline, called for many clips.

    Attributes
    ----------
    name : str
        Name that `attnviz.explain` takes.
    quantity : str
        Name of the values of its maps.
    signed : bool
        Whether the values have a sign by definition.
    pipe : diffusers.DiffusionPipeline
    """

    name: ClassVar[str]
    quantity: ClassVar[str]
    signed: ClassVar[bool] = False
    by_cell: ClassVar[bool] = True
    """Whether the maps are of the prediction's cells, in one layer; otherwise they are of the attention layers."""

    pipe: Any

    @public
    def attribute(self, audio: AudioSource, caption: str, **looks: Any) -> AttentionMaps:
        """Attribute what the model sees in a clip to the words of its caption.

        Parameters
        ----------
        audio, caption
            The clip, and its description.
        **looks
            Keyword arguments of `attnviz.explain`, except `method`.

        Returns
        -------
        AttentionMaps
            Maps with the layers, tokens and axes that all readers expect; `content` names method and quantity.

        Raises
        ------
        AttnVizError
            As `attnviz.explain`.
        """
        from attnviz.attribution.explanation import explain  # which knows all methods

        return explain(self.pipe, audio, caption, method=self, **looks)

    def check(self, keep: frozenset[str]) -> None:
        """Raise if the settings are invalid, or heads are to be kept where there are none.

        Raises
        ------
        CaptureError
            Before the model runs.
        """
        if self.by_cell and "head" in keep:
            raise CaptureError(
                f"keep=('head',) is not possible with method={self.name!r}, which reads the prediction: only "
                "layers of attention have heads."
            )

    def check_family(self, family: Family) -> None:
        """Raise if the method is not defined for a family other than Stable Diffusion's.

        Raises
        ------
        CaptureError
            With the methods that are.
        """
        raise CaptureError(
            f"method={self.name!r} compares predictions for several texts, which attnviz makes for pipelines of "
            f"Stable Diffusion's anatomy. For {family.name}, use 'attention', 'value' or "
            "'leave_one_out', where the model has them."
        )

    @property
    def measure(self) -> Measure:
        """What is recorded of each layer."""
        return MEASURES["attention"]

    @abstractmethod
    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Return the layers of the maps of one window.

        Parameters
        ----------
        asked : Asked
        views : sequence of (torch.Tensor, int)
            Inputs of the denoiser, and their timesteps.
        predict : callable
            Maps latents and a timestep to the prediction for the caption, and moves the progress bar.
        window : int
            Number of the window.
        """

    @property
    def content(self) -> dict[str, Any]:
        """What the values of the maps are: see `AttentionMaps.content`."""
        return {"method": self.name, "quantity": self.quantity, "signed": int(self.signed)}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the method, for provenance."""
        own = {name: value for name, value in vars(self).items() if name != "pipe"}
        return {"method": self.name, **own}


def checked_size(size: Any) -> int:
    """Return the rows of a batch."""
    return whole_number("internal_batch_size", size, most=1 << 20, error=CaptureError)


def on_tokens(
    asked: Asked,
    players: Sequence[Player],
    values: Sequence[torch.Tensor],
    rest: Sequence[torch.Tensor] | None = None,
    stride: tuple[float, float] = (1, 1),
) -> dict[str, CapturedLayer]:
    """Return the maps of players as one layer with a token axis.

    Parameters
    ----------
    asked : Asked
    players : sequence of Player
    values : sequence of torch.Tensor, each of shape (players, rows, columns)
        Maps at each timestep.
    rest : sequence of torch.Tensor, each of shape (rows, columns), optional
        What belongs to no word, at each timestep: stored with the first token that is no text.
    stride : (float, float)
        Rows and columns of the latents from one cell to the next.

    Returns
    -------
    dict of str to CapturedLayer
        Each token of a player has the player's map, so that the mean over the tokens of a word is its map. Tokens
        that belong to no word, such as punctuation, have zeros.
    """
    positions = list(asked.conditioning.positions)
    owner = {position: number for number, player in enumerate(players) for position in player.positions}
    kinds = dict(zip(asked.tokens.rows["position"], asked.tokens.rows["kind"], strict=True))
    frame = next((position for position in positions if kinds[position] != "text"), None)
    steps = []
    for number, of_players in enumerate(values):
        step = of_players.new_zeros(len(positions), *of_players.shape[1:])
        for place, position in enumerate(positions):
            if position in owner:
                step[place] = of_players[owner[position]]
            elif rest is not None and position == frame:
                step[place] = rest[number]
        steps.append(step)
    return of_prediction(asked, steps, stride)


def of_prediction(
    asked: Asked, steps: Sequence[torch.Tensor], stride: tuple[float, float] = (1, 1)
) -> dict[str, CapturedLayer]:
    """Return maps (tokens, rows, columns) at each timestep as one layer of the prediction."""
    together = torch.stack(list(steps)).cpu().numpy().astype(np.float32)
    if not asked.keeps_steps:
        together = together.mean(axis=0, keepdims=True)[0]
    if not np.isfinite(together).all():
        raise CaptureError(
            "The attribution is NaN or infinite: so is a prediction of the denoiser. In float16, this is an "
            "overflow (try bfloat16 or float32). Otherwise a weight of the checkpoint is not finite."
        )
    has_freq = asked.recorder.family.queries.has_freq
    axes = {"step": asked.keeps_steps, "token": True, "row": has_freq, "column": True}
    if not has_freq:
        together = together[..., 0, :]
    dims = ("prompt", "image", *(name for name, there in axes.items() if there))
    return {PREDICTION: CapturedLayer(together[None, None], dims, 1, PREDICTION, stride)}


class Placed(Protocol):
    """Where the windows of a clip are: what `Asked` has of it."""

    @property
    def grid(self) -> SpectrogramGrid:
        """Grid of the whole clip."""
        ...

    @property
    def factor(self) -> int:
        """Rows and columns of the grid per row and column of the latents."""
        ...

    @property
    def starts(self) -> Sequence[int]:
        """First column of the grid in each window."""
        ...


def event_mask(event: Event | None, asked: Placed, shape: Sequence[int], window: int) -> np.ndarray:
    """Return the cells (rows, columns) of a window's latents that an event covers; all without an event.

    Row 0 is the highest frequency.

    Raises
    ------
    CaptureError
        If the event is not a time within the clip.
    """
    rows, columns = shape
    if event is None:
        return np.ones(tuple(shape), dtype=bool)
    grid, factor = asked.grid, float(asked.factor)
    onset, offset, low, high = checked_event(
        event, grid.seconds if grid.audio_seconds is None else grid.audio_seconds
    )
    cells = replace(grid, width=columns * asked.factor, audio_seconds=None).cells(rows, columns, (factor, factor))
    seconds = cells.time + asked.starts[window] * grid.hop_length / grid.sampling_rate
    inside = (seconds >= onset) & (seconds < offset)
    band = (cells.freq >= low) & (cells.freq <= high)
    return np.flip(band)[:, None] & inside[None, :]


def checked_event(event: Event, seconds: float) -> tuple[float, float, float, float]:
    """Return onset, offset, lowest and highest frequency of an event within a clip.

    Raises
    ------
    CaptureError
        With the event and the length of the clip.
    """
    try:
        values = [float(value) for value in event]
    except (TypeError, ValueError) as error:
        raise CaptureError(
            f"event={event!r} is not (onset, offset) in seconds, or (onset, offset, low, high)."
        ) from error
    if len(values) not in (2, 4) or not np.isfinite(values).all():
        raise CaptureError(
            f"event={event!r} is not two or four finite numbers: onset and offset in seconds, and, if wanted, low "
            "and high in Hz."
        )
    onset, offset = values[:2]
    low, high = values[2:] or (0.0, np.inf)
    if not 0 <= onset < offset or onset >= seconds:
        raise CaptureError(
            f"event={event!r} is not inside the clip, which lasts {seconds:.2f} s: 0 <= onset < offset is needed, "
            "in seconds."
        )
    if not 0 <= low < high:
        raise CaptureError(f"event={event!r} has the band {low:g} to {high:g} Hz; 0 <= low < high is needed.")
    return onset, offset, low, high
