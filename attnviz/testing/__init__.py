"""Tiny random-weight checkpoints in each published layout, and synthetic maps with known events; offline."""

from attnviz.testing.checkpoints import write_adapter_checkpoint, write_plain_checkpoint
from attnviz.testing.families import FAMILIES, write_family_checkpoint
from attnviz.testing.maps import EXAMPLE_PROMPT, example_events, example_maps
from attnviz.testing.models import ENCODER_POSITIONS, ENCODER_WIDTHS, ENCODERS
from attnviz.testing.tokenizer_files import make_tokenizer

__all__ = [
    "ENCODERS",
    "ENCODER_POSITIONS",
    "ENCODER_WIDTHS",
    "EXAMPLE_PROMPT",
    "FAMILIES",
    "example_events",
    "example_maps",
    "make_tokenizer",
    "write_adapter_checkpoint",
    "write_family_checkpoint",
    "write_plain_checkpoint",
]
