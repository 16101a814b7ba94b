"""Families of text-to-audio models, one small file each; a user's own is one more record, passed or registered.

A family states where text meets sound (the sites), and what the queries and the keys there are. Nothing here looks
at a model while it works; `attnviz.capture` does, and asks the record.
"""

from __future__ import annotations

from typing import Any

from attnviz.errors import CaptureError
from attnviz.models.families import (
    ace_step,
    audioldm2,
    longcat_audio_dit,
    musicgen,
    stable_audio,
    stable_audio_3,
    stable_diffusion,
    tango,
    tango_flux,
)
from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds, Segment, setting

STABLE_DIFFUSION = stable_diffusion.FAMILY
FAMILIES: tuple[Family, ...] = (
    audioldm2.FAMILY,
    stable_audio.FAMILY,
    stable_audio_3.FAMILY,
    longcat_audio_dit.FAMILY,
    ace_step.FAMILY,
    musicgen.FAMILY,
    musicgen.MELODY,
    tango.FAMILY,
    tango.PUBLISHED,
    tango_flux.FAMILY,
    tango_flux.PUBLISHED,
)
"""Families of models whose layout is not Stable Diffusion's."""

INSIDE = {"Tango": "model", "TangoFluxInference": "model"}
"""Classes around a model of a family, by name, and the attribute that holds the model."""

WITHOUT_WORDS = {
    "AudioLDMPipeline": "its U-Net gets one CLAP vector of the whole prompt",
    "MusicLDMPipeline": "its U-Net gets one CLAP vector of the whole prompt",
}
"""Pipelines in which no attention module sees a word, by class name, and why."""


def example_family(model: object) -> str:
    """Return the lines that make a family of a model that belongs to none, to be filled in."""
    denoiser = next((name for name in ("transformer", "unet") if hasattr(model, name)), "transformer")
    return f"""\
A model of another anatomy is traced with a record of it, attnviz.trace(pipe, family=family):

from attnviz.models.families import Family, Queries, Seconds, Segment
family = Family(
    name="my-model",
    pipelines=("{type(model).__name__}",),
    denoiser="{denoiser}",  # attribute of the pipeline; below it, the paths of the modules that see the text
    sites=r"transformer_blocks\\.\\d+\\.attn2",
    latents="hidden_states", timestep="timestep", states="encoder_hidden_states",  # arguments of the denoiser
    queries=Queries(order=("time",), prefix=0),  # ("time", "freq") or ("freq", "time") for spectrograms
    keys=(Segment("text"),),  # in order; for example Segment("duration", 2) after it
    encoder="text_encoder", tokenizer="tokenizer", encoded="encode_prompt",  # attributes of the pipeline
    guidance=("unconditional", "conditional"),  # order of the rows of a guided call
    seconds=Seconds(rate="vae.config.sampling_rate", samples="vae.hop_length", asked="audio_end_in_s"),
)"""


def model_inside(model: Any) -> Any:
    """Return the model of a family inside a published class around it; any other object unchanged."""
    name = next((INSIDE[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in INSIDE), None)
    return model if name is None else getattr(model, name)


def family_of(model: object) -> Family | None:
    """Return the family of a pipeline; None where it is none of `FAMILIES`.

    Raises
    ------
    CaptureError
        In this model no attention module sees a word.
    """
    for kind in type(model).__mro__:
        _check_words(kind.__name__, type(model).__name__)
    return next((family for family in FAMILIES if family.is_of(model)), None)


def family_named(name: str) -> Family | None:
    """Return the family of a class of pipelines, by the name of the class; None where it is none of `FAMILIES`.

    Raises
    ------
    CaptureError
        In such a model no attention module sees a word.
    """
    _check_words(name, name)
    return next((family for family in FAMILIES if name in family.pipelines), None)


def _check_words(name: str, shown: str) -> None:
    if reason := WITHOUT_WORDS.get(name):
        raise CaptureError(
            f"{shown} cannot be traced: {reason}, so no attention module sees words and there are no maps to "
            "read. What a word does there shows when it is left out: generate with and without it, from the same "
            "seed, and compare."
        )


__all__ = [
    "FAMILIES",
    "STABLE_DIFFUSION",
    "WITHOUT_WORDS",
    "AudioEncoding",
    "Family",
    "Queries",
    "Seconds",
    "Segment",
    "example_family",
    "family_named",
    "family_of",
    "model_inside",
    "setting",
]
