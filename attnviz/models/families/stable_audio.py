"""Stable Audio Open: a sequence in time after one position of globals; padding is zeros that are not masked."""

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds, Segment

FAMILY = Family(
    name="stable-audio",
    pipelines=("StableAudioPipeline",),
    sites=r"transformer_blocks\.\d+\.attn2",
    self_sites=r"transformer_blocks\.\d+\.attn1",
    queries=Queries(("time",), prefix=1),
    keys=(Segment("text"), Segment("duration", 2)),
    seconds=Seconds(rate="vae.config.sampling_rate", samples="vae.hop_length", asked="audio_end_in_s"),
    audio=AudioEncoding(channels="vae.config.audio_channels", longest="transformer.config.sample_size"),
    must_be={
        "audio_start_in_s": (
            0.0,
            "the pipeline cuts off the front of the waveform, and maps count seconds from the latents' start; "
            "leave it out and cut the waveform yourself",
        )
    },
)
