"""TangoFlux: one joint sequence of text, duration and 645 columns of audio."""

import dataclasses

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds, Segment

# As `attnviz.load` gives it.
FAMILY = Family(
    name="tango-flux",
    pipelines=("TangoFluxPipeline",),
    sites=r"(?:single_)?transformer_blocks\.\d+\.attn",
    queries=Queries(("time",), prefix="keys", axis=1),
    keys=(Segment("text"), Segment("duration", 1)),
    seconds=Seconds(rate="vae.config.sampling_rate", samples="vae.hop_length", asked="duration"),
    audio=AudioEncoding(channels="vae.config.audio_channels", longest="config.audio_seq_len"),
)
# As its authors' package gives it.
PUBLISHED = dataclasses.replace(
    FAMILY,
    pipelines=("TangoFlux",),
    encoded=("encode_text_classifier_free", "encode_text"),
    call="inference_flow",
    scheduler="noise_scheduler",
    waveforms="num_samples_per_prompt",
    alone=True,
    # Of Stable Audio Open's auto-encoder, which is no part of the model.
    seconds=Seconds(rate=44100, samples=2048, asked="duration"),
    audio=AudioEncoding(channels="vae.config.audio_channels", longest="model.audio_seq_len"),
)
