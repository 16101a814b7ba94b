"""Families of text-to-audio models, one small file each; a user's own is one more record, passed or registered.

A family states where text meets sound (the sites), and what the queries and the keys there are. Nothing here looks
at a model while it works; `attnviz.capture` does, and asks the record.
"""

from __future__ import annotations

from attnviz.errors import CaptureError
from attnviz.models.families import (
    ace_step,
    audioldm2,
    longcat_audio_dit,
    stable_audio,
    stable_audio_3,
    stable_diffusion,
)
from attnviz.models.families.family import Family, Queries, Seconds, Segment, setting

STABLE_DIFFUSION = stable_diffusion.FAMILY
FAMILIES: tuple[Family, ...] = tuple(
    room.FAMILY for room in (audioldm2, stable_audio, stable_audio_3, longcat_audio_dit, ace_step)
)
"""Families of pipelines whose layout is not Stable Diffusion's."""

WITHOUT_WORDS = {
    "AudioLDMPipeline": "its U-Net gets one CLAP vector of the whole prompt",
    "MusicLDMPipeline": "its U-Net gets one CLAP vector of the whole prompt",
}
"""Pipelines in which no attention module sees a word, by class name, and why."""


def family_of(model: object) -> Family | None:
    """Return the family of a pipeline; None where it is none of `FAMILIES`.

    Raises
    ------
    CaptureError
        In this model no attention module sees a word.
    """
    for kind in type(model).__mro__:
        if reason := WITHOUT_WORDS.get(kind.__name__):
            raise CaptureError(
                f"{type(model).__name__} cannot be traced: {reason}, so no attention module sees words and there "
                "are no maps to read. What a word does there shows when it is left out: generate with and without "
                "it, from the same seed, and compare."
            )
    return next((family for family in FAMILIES if family.is_of(model)), None)


__all__ = [
    "FAMILIES",
    "STABLE_DIFFUSION",
    "WITHOUT_WORDS",
    "Family",
    "Queries",
    "Seconds",
    "Segment",
    "family_of",
    "setting",
]
