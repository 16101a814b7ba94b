"""`AttentionMaps`: labelled attention of a pipeline call, its readouts, files and exports."""

from attnviz.maps.attention_maps import AttentionMaps
from attnviz.maps.fitted import FittedReadout, ReadoutPart
from attnviz.maps.layer import LayerAttention
from attnviz.maps.readouts import resize
from attnviz.maps.settling import Readout
from attnviz.maps.sharp import SharpReadout
from attnviz.maps.summaries import (
    attention_share,
    segment_share,
    step_activation,
    token_activation,
    word_overlap,
)
from attnviz.maps.words import StoredWord

__all__ = [
    "AttentionMaps",
    "FittedReadout",
    "LayerAttention",
    "Readout",
    "ReadoutPart",
    "SharpReadout",
    "StoredWord",
    "attention_share",
    "resize",
    "segment_share",
    "step_activation",
    "token_activation",
    "word_overlap",
]
