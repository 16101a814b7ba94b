"""Capture how a model attends to its text while it runs.

Input: a denoiser or decoder, its family's record, and what each call is conditioned on. Output: the attention of
each layer on the layer's grid. During a trace, a `TracingProcessor` in the slot of each layer (`site`) calls the
original processor with a tap on the attention kernel (`kernel`); a module without a slot gets the tap around its
``forward``. `AttentionRecorder` averages the calls of a denoiser, and `SequenceRecorder` appends those of an
autoregressive decoder. This package imports nothing about audio or words.
"""

from attnviz.capture.changes import Changes, held
from attnviz.capture.conditioning import Branches, Conditioning, PromptConditioning
from attnviz.capture.editing import UNSETTLED, AttentionEdit, EditedRow
from attnviz.capture.layers import CrossAttentionLayer, find_cross_attention
from attnviz.capture.measures import Measure, measure_of
from attnviz.capture.probabilities import attention_probabilities
from attnviz.capture.processor import TracingProcessor, held_processor, is_traced
from attnviz.capture.recorder import DEFAULT_MAX_BYTES, AttentionRecorder
from attnviz.capture.recording import Recording
from attnviz.capture.sequences import SequenceRecorder, SequenceRecording
from attnviz.capture.store import AttentionStore, CapturedLayer

__all__ = [
    "DEFAULT_MAX_BYTES",
    "UNSETTLED",
    "AttentionEdit",
    "AttentionRecorder",
    "AttentionStore",
    "Branches",
    "CapturedLayer",
    "Changes",
    "Conditioning",
    "CrossAttentionLayer",
    "EditedRow",
    "Measure",
    "PromptConditioning",
    "Recording",
    "SequenceRecorder",
    "SequenceRecording",
    "TracingProcessor",
    "attention_probabilities",
    "find_cross_attention",
    "held",
    "held_processor",
    "is_traced",
    "measure_of",
]
