"""TangoFlux, in its published code: one joint sequence of text, duration and 645 columns of audio."""

from attnviz.models.families.family import Family, Queries, Seconds, Segment

FAMILY = Family(
    name="tango-flux",
    pipelines=("TangoFlux",),
    sites=r"(?:single_)?transformer_blocks\.\d+\.attn",
    queries=Queries(("time",), prefix="keys", axis=1),
    keys=(Segment("text"), Segment("duration", 1)),
    encoded=("encode_text_classifier_free", "encode_text"),
    call="inference_flow",
    scheduler="noise_scheduler",
    waveforms="num_samples_per_prompt",
    # Of Stable Audio Open's auto-encoder, which is no part of the model.
    seconds=Seconds(rate=44100, samples=2048, asked="duration"),
)
