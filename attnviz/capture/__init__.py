"""Capture: a U-Net's cross-attention, observed while it works. Knows U-Nets, nothing of audio or words.

What enters is a U-Net and the embeddings of each call; what leaves is the attention of each layer on its own grid.
During a trace a processor of ours (`processor`) stands in every layer's slot (`site`), and calls the one that was
there with a tap on the attention kernel (`kernel`).
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
