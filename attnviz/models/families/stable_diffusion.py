"""Auffusion, and pipelines of Stable Diffusion's anatomy: a U-Net whose rows are frequency, highest first."""

from attnviz.models.families.family import Family, Queries

FAMILY = Family(
    name="stable-diffusion",
    pipelines=("StableDiffusionMixin", "AuffusionMixin"),
    denoiser="unet",
    sites=r".*",
    latents="sample",
    queries=Queries(("freq", "time"), first_row="highest"),
)
