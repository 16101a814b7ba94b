"""Tiny random-weight checkpoints in each published layout, for tests: offline, in under a second."""

from attnviz.testing.checkpoints import write_adapter_checkpoint, write_plain_checkpoint
from attnviz.testing.models import ENCODER_POSITIONS, ENCODER_WIDTHS, ENCODERS
from attnviz.testing.tokenizer_files import make_tokenizer

__all__ = [
    "ENCODERS",
    "ENCODER_POSITIONS",
    "ENCODER_WIDTHS",
    "make_tokenizer",
    "write_adapter_checkpoint",
    "write_plain_checkpoint",
]
