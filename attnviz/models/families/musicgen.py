"""MusicGen: codes of an audio codec, one position after the other; position p makes codebook k of frame p - k."""

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds, Segment

FAMILY = Family(
    name="musicgen",
    pipelines=("MusicgenForConditionalGeneration",),
    denoiser="decoder",
    sites=r"model\.decoder\.layers\.\d+\.encoder_attn",
    self_sites=r"model\.decoder\.layers\.\d+\.self_attn",
    queries=Queries(("time",)),
    encoded="generate",
    guidance=("conditional", "unconditional"),
    codebooks="decoder.config.num_codebooks",
    seconds=Seconds(rate="audio_encoder.config.sampling_rate", samples="audio_encoder.config.upsampling_ratios"),
    audio=AudioEncoding(
        "audio_encoder", channels="decoder.config.audio_channels", longest="generation_config.max_length"
    ),
)
MELODY = Family(
    name="musicgen-melody",
    pipelines=("MusicgenMelodyForConditionalGeneration",),
    denoiser="decoder",
    sites=r"model\.decoder\.layers\.\d+\.self_attn",
    # One causal sequence: the melody, the text, and the codes so far.
    queries=Queries(("time",), prefix="keys"),
    keys=(Segment("audio", "config.chroma_length"), Segment("text")),
    encoded="generate",
    guidance=("conditional", "unconditional"),
    codebooks="decoder.config.num_codebooks",
    seconds=Seconds(rate="audio_encoder.config.sampling_rate", samples="audio_encoder.config.upsampling_ratios"),
    audio=AudioEncoding(
        "audio_encoder", channels="decoder.config.audio_channels", longest="generation_config.max_length"
    ),
)
