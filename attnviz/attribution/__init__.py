"""Attribute what a model does to the words of a text: methods that give the same maps, and their controls.

Input: a pipeline, audio and its caption. Output: `AttentionMaps`, whose `content` names method, quantity and sign.
May import `attnviz.capture`, `attnviz.diffusion`, `attnviz.maps` and `attnviz.models.pipelines`.
"""

from attnviz.attribution.ablation import LeaveOneOut, Shapley
from attnviz.attribution.attention_gradient import Gradient
from attnviz.attribution.explanation import explain
from attnviz.attribution.faithfulness import (
    Curve,
    DeletionInsertion,
    deletion_insertion,
    infidelity,
    random_deletion_insertion,
)
from attnviz.attribution.faithfulness_cells import CellAblation
from attnviz.attribution.faithfulness_heads import HeadAblation
from attnviz.attribution.faithfulness_methods import sensitivity_max, weight_randomization
from attnviz.attribution.faithfulness_words import WordAblation
from attnviz.attribution.gradients import GradientShap, IntegratedGradients
from attnviz.attribution.heard import HeardWord
from attnviz.attribution.method import Attribution
from attnviz.attribution.methods import METHODS
from attnviz.attribution.randomizing import cascade
from attnviz.attribution.recorded import Attention, Rollout, Value

__all__ = [
    "METHODS",
    "Attention",
    "Attribution",
    "CellAblation",
    "Curve",
    "DeletionInsertion",
    "Gradient",
    "GradientShap",
    "HeadAblation",
    "HeardWord",
    "IntegratedGradients",
    "LeaveOneOut",
    "Rollout",
    "Shapley",
    "Value",
    "WordAblation",
    "cascade",
    "deletion_insertion",
    "explain",
    "infidelity",
    "random_deletion_insertion",
    "sensitivity_max",
    "weight_randomization",
]
