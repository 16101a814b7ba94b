"""Capture the cross-attention of a U-Net while the U-Net runs.

Input: a U-Net, and the embeddings of each call. Output: the attention of each layer on the layer's grid.
During a trace, a `TracingProcessor` in the slot of each layer (`site`) calls the original processor with a tap on
the attention kernel (`kernel`). This package handles U-Nets only; it imports nothing about audio or words.
"""

from attnviz.capture.changes import Changes, held
from attnviz.capture.conditioning import Branches, Conditioning
from attnviz.capture.editing import AttentionEdit, EditedRow
from attnviz.capture.layers import CrossAttentionLayer, find_cross_attention
from attnviz.capture.probabilities import attention_probabilities
from attnviz.capture.processor import TracingProcessor, held_processor, is_traced
from attnviz.capture.recorder import DEFAULT_MAX_BYTES, AttentionRecorder
from attnviz.capture.recording import Recording
from attnviz.capture.store import AttentionStore, CapturedLayer

__all__ = [
    "DEFAULT_MAX_BYTES",
    "AttentionEdit",
    "AttentionRecorder",
    "AttentionStore",
    "Branches",
    "CapturedLayer",
    "Changes",
    "Conditioning",
    "CrossAttentionLayer",
    "EditedRow",
    "Recording",
    "TracingProcessor",
    "attention_probabilities",
    "find_cross_attention",
    "held",
    "held_processor",
    "is_traced",
]
