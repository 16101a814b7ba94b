"""Edit generated and real clips through attention: word swap, refinement, re-weighting and local blend."""

from attnviz.editing.blend import LocalBlend
from attnviz.editing.edited import EditedAudio
from attnviz.editing.edits import refine, reweight, swap
from attnviz.editing.generating import apply_edit
from attnviz.editing.inverting import InvertedClip, invert
from attnviz.editing.prompt_edit import PromptEdit

__all__ = [
    "EditedAudio",
    "InvertedClip",
    "LocalBlend",
    "PromptEdit",
    "apply_edit",
    "invert",
    "refine",
    "reweight",
    "swap",
]
