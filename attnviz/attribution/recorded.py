"""Methods that read the attention layers while the denoiser runs once: attention, value, rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnviz.arguments import public
from attnviz.attribution.looking import look
from attnviz.attribution.method import Asked, Attribution
from attnviz.capture import CapturedLayer, Measure
from attnviz.capture.measures import MEASURES
from attnviz.diffusion.noising import Predict, View
from attnviz.models.families import Family


@dataclass(frozen=True)
class Recorded(Attribution):
    """A method whose values are recorded along with the attention; see `attnviz.capture.measures`."""

    by_cell: ClassVar[bool] = False

    @property
    def measure(self) -> Measure:
        """What is recorded."""
        return MEASURES[self.name]

    def check_family(self, family: Family) -> None:
        """Accept every family; the recorder knows what its layers have."""

    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Record what each layer does in one call for each view."""
        return look(asked.denoising, views, asked.recorder, predict)


@public
@dataclass(frozen=True)
class Attention(Recorded):
    """How much each position attends to a word: the attention probability.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    """

    name: ClassVar[str] = "attention"
    quantity: ClassVar[str] = MEASURES["attention"].quantity


@public
@dataclass(frozen=True)
class Value(Recorded):
    """What a word adds to a position: the norm of ``A V W_o``, in each layer.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline

    Notes
    -----
    References: Kobayashi et al., Attention is Not Only a Weight: Analyzing Transformers with Vector Norms (arXiv
    2004.10102).
    """

    name: ClassVar[str] = "value"
    quantity: ClassVar[str] = MEASURES["value"].quantity


@public
@dataclass(frozen=True)
class Rollout(Recorded):
    """Attention, mixed over positions as the self-attention of the same block mixes them.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline

    Notes
    -----
    See `attnviz.capture.measures.rollout`. Reference: Abnar & Zuidema, Quantifying Attention Flow in Transformers
    (arXiv 2005.00928).
    """

    name: ClassVar[str] = "rollout"
    quantity: ClassVar[str] = MEASURES["rollout"].quantity
