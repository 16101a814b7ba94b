"""Capture: a U-Net's cross-attention, observed while it works. Knows U-Nets, nothing of audio or words."""

from attnviz.capture.conditioning import Branches, Conditioning
from attnviz.capture.editing import AttentionEdit, EditedRow, Share
from attnviz.capture.layers import KNOWN_PROCESSORS, CrossAttentionLayer, find_cross_attention
from attnviz.capture.probabilities import attention_probabilities
from attnviz.capture.recorder import DEFAULT_MAX_BYTES, AttentionRecorder, is_recorded
from attnviz.capture.recording import Recording
from attnviz.capture.store import AttentionStore, CapturedLayer

__all__ = [
    "DEFAULT_MAX_BYTES",
    "KNOWN_PROCESSORS",
    "AttentionEdit",
    "AttentionRecorder",
    "AttentionStore",
    "Branches",
    "CapturedLayer",
    "Conditioning",
    "CrossAttentionLayer",
    "EditedRow",
    "Recording",
    "Share",
    "attention_probabilities",
    "find_cross_attention",
    "is_recorded",
]
