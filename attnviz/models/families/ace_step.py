"""ACE-Step: two latents a column; lyrics, timbre and text are packed; the conditional row comes first."""

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds, Segment

FAMILY = Family(
    name="ace-step",
    pipelines=("AceStepPipeline",),
    sites=r"layers\.\d+\.cross_attn",
    self_sites=r"layers\.\d+\.self_attn",
    queries=Queries(("time",), patch="config.patch_size", axis=1),
    keys=(Segment("lyrics", "lyric_attention_mask"), Segment("timbre", 1), Segment("text")),
    encoded="condition_encoder",
    packed=True,
    guidance=("conditional", "unconditional"),
    caption="# Caption\n",
    formatted="_format_prompt",
    seconds=Seconds(rate="vae.config.sampling_rate", samples="vae.hop_length", asked="audio_duration"),
    audio=AudioEncoding(channels="vae.config.audio_channels"),
    each=("lyrics",),
    must_be={
        "audio_cover_strength": (1.0, "each step then looks a second time, at a text that is not the prompt"),
    },
)
