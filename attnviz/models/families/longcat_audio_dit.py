"""LongCat-AudioDiT: a sequence in time; the prompt is lower-cased first, and guidance makes a second call.

Four convolutions mix each key with its neighbours, so a word's map holds a little of the words beside it.
"""

import math
from typing import Any

from torch import nn

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds


def _samples(pipe: Any) -> int:
    """Return the samples of a latent.

    They follow from the layers that were made: `downsampling_ratio` need not be their product, and a list of
    strides that is missing, or of another length than the levels, is extended or cut by the auto-encoder.
    """
    layers = pipe.vae.decoder.modules()
    return math.prod(int(layer.stride[0]) for layer in layers if isinstance(layer, nn.ConvTranspose1d))


FAMILY = Family(
    name="longcat-audio-dit",
    pipelines=("LongCatAudioDiTPipeline",),
    sites=r"blocks\.\d+\.cross_attn",
    self_sites=r"blocks\.\d+\.self_attn",
    queries=Queries(("time",), axis=1),
    guidance=("conditional",),
    seconds=Seconds(rate="vae.config.sample_rate", samples=_samples, asked="audio_duration_s"),
    audio=AudioEncoding(channels="vae.config.in_channels"),
)
