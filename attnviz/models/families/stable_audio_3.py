"""Stable Audio 3: a sequence in time after memory positions; differential attention, so maps have a sign."""

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds, Segment

FAMILY = Family(
    name="stable-audio-3",
    pipelines=("StableAudio3Pipeline",),
    sites=r"transformer_blocks\.\d+\.cross_attn",
    self_sites=r"transformer_blocks\.\d+\.self_attn",
    queries=Queries(("time",), prefix="config.num_memory_tokens", patch="config.patch_size"),
    keys=(Segment("text"), Segment("duration", 1)),
    negated="use_differential",
    seconds=Seconds(rate="vae.config.sampling_rate", samples="vae.downsampling_ratio", asked="duration"),
    audio=AudioEncoding(channels="vae.config.audio_channels"),
)
