"""Tango and Tango 2: a U-Net over (time, frequency), the lowest band first."""

import dataclasses

from attnviz.models.families.family import AudioEncoding, Family, Queries, Seconds

# As `attnviz.load` gives it.
FAMILY = Family(
    name="tango",
    pipelines=("TangoPipeline",),
    denoiser="unet",
    sites=r"(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)\.attentions\.\d+\.transformer_blocks\.\d+\.attn2",
    latents="sample",
    queries=Queries(("time", "freq"), first_row="lowest"),
    seconds=Seconds(
        rate="vocoder.config.sampling_rate",
        samples="vocoder.config.upsample_rates",
        bands="vocoder.config.model_in_dim",
    ),
    audio=AudioEncoding(frames=4, scale="vae.config.scaling_factor", peak=0.5),
)
# As its authors' package gives it.
PUBLISHED = dataclasses.replace(
    FAMILY,
    pipelines=("AudioDiffusion",),
    encoded=("encode_text_classifier_free", "encode_text"),
    call="inference",
    scheduler="inference_scheduler",
    waveforms="num_samples_per_prompt",
    # As in its stft_config.json; the model itself does not know them.
    seconds=Seconds(rate=16000, samples=160, bands=64),
    # The auto-encoder is an attribute of the published class around the model.
    audio=AudioEncoding(frames=4, scale="vae.scale_factor", peak=0.5),
)
