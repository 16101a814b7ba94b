"""LongCat-AudioDiT: a sequence in time; the prompt is lower-cased first, and guidance makes a second call.

Four convolutions mix each key with its neighbours, so a word's map holds a little of the words beside it.
"""

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds

FAMILY = Family(
    name="longcat-audio-dit",
    pipelines=("LongCatAudioDiTPipeline",),
    sites=r"blocks\.\d+\.cross_attn",
    self_sites=r"blocks\.\d+\.self_attn",
    queries=Queries(("time",), axis=1),
    guidance=("conditional",),
    # The strides, not `downsampling_ratio`, which need not be their product.
    seconds=Seconds(rate="vae.config.sample_rate", samples="vae.config.strides", asked="audio_duration_s"),
    audio=AudioEncoding(channels="vae.config.in_channels"),
)
