"""The measured models: published size and random weights, or narrow ones, with small text encoders.

Only the denoiser has its published size. Text encoders and auto-encoders are small and have matching shapes: they
run once in a generation, or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from time import perf_counter
from typing import Any

import torch
from diffusers import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderOobleck,
    DiffusionPipeline,
    StableAudioDiTModel,
    StableAudioProjectionModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5EncoderModel

from attnviz.testing import write_family_checkpoint
from overhead_parts.settings import Settings
from overhead_parts.stable_diffusion import SD15_UNET, TINY_UNET, build_stable_diffusion

_NOISE_LENGTH = 1_048_573  # a prime, so that rows of weight matrices do not repeat

AUDIOLDM2_UNET: dict[str, Any] = {
    "block_out_channels": (128, 256, 384, 640),
    "layers_per_block": 2,
    "in_channels": 8,
    "out_channels": 8,
    "attention_head_dim": (4, 8, 12, 20),  # the number of heads, of 32 channels each
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    "cross_attention_dim": ([None, 768, 1024],) * 4,
}
"""The U-Net of ``cvssp/audioldm2``, as in the conversion script of diffusers: 347 million parameters."""

STABLE_AUDIO_DIT: dict[str, Any] = {}
"""The transformer of Stable Audio Open 1.0 has the defaults of diffusers: 1 057 million parameters."""


@dataclass(frozen=True)
class Subject:
    """A model on which capturing is measured.

    Attributes
    ----------
    title : str
        Name in reports.
    build : callable
        Function of the settings that returns a pipeline with random weights, in float32 and on the CPU.
    call : dict
        Arguments of a generation besides prompt, steps and generator.
    sites : str
        Regular expression of the names of the modules that attend to text, in the denoiser.
    denoiser : str
        Attribute of the pipeline.
    latents : str
        Attribute of the output.
    time_rows : bool
        Whether rows of a 4-D latent are time, and columns frequency.
    tools : tuple of str
        Tools that work on it.
    more_memory : float
        Target of additional peak memory in MiB.
    """

    title: str
    build: Callable[[Settings], Any]
    call: dict[str, Any]
    tiny_call: dict[str, Any]
    sites: str
    denoiser: str = "unet"
    latents: str = "images"
    time_rows: bool = False
    tools: tuple[str, ...] = ("none", "attnviz")
    more_memory: float = 32.0


def subject_of(settings: Settings) -> Subject:
    """Return the measured model."""
    return SUBJECTS[settings.model]


def build_pipeline(settings: Settings) -> Any:
    """Build the pipeline of the measured model on its device, with seeded weights and a clock."""
    subject = subject_of(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = subject.build(settings)
    dtype = getattr(torch, settings.dtype)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False).to(settings.device)
            if dtype != torch.float32:
                part.to(dtype)
    attach_clock(pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def denoiser_of(pipe: Any, settings: Settings) -> nn.Module:
    """Return the denoiser of a pipeline."""
    return getattr(pipe, subject_of(settings).denoiser)


def generate(pipe: Any, settings: Settings, steps: int) -> torch.Tensor:
    """Run the pipeline to latents, with guidance and always the same noise."""
    subject = subject_of(settings)
    out = pipe(
        settings.prompt,
        num_inference_steps=steps,
        generator=torch.Generator(settings.device).manual_seed(0),
        output_type="latent",
        **(subject.tiny_call if settings.tiny else subject.call),
    )
    return getattr(out, subject.latents)


def attach_clock(scheduler: Any) -> None:
    """Measure the time of each denoiser call in ``scheduler.call_seconds``.

    A pipeline calls ``scale_model_input`` immediately before the denoiser and ``step`` immediately after it, so
    the time includes the denoiser and all of its hooks, without changing a module that a tool may inspect.
    """
    scale, step = scheduler.scale_model_input, scheduler.step
    scheduler.call_seconds = []
    started = [0.0]

    @wraps(scale)
    def started_scale(sample: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        scaled = scale(sample, *arguments, **more)
        synchronize(sample.device)
        started[0] = perf_counter()
        return scaled

    @wraps(step)
    def stopped_step(model_output: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        synchronize(model_output.device)
        scheduler.call_seconds.append(perf_counter() - started[0])
        return step(model_output, *arguments, **more)

    scheduler.scale_model_input, scheduler.step = started_scale, stopped_step


def synchronize(device: torch.device) -> None:
    """Wait for the accelerator, if any."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def with_noise(made: Callable[[], nn.Module]) -> Any:
    """Create a module, and fill it with seeded noise of the scale of an initialisation.

    Copying one block of noise over a billion weights takes one second; drawing all takes ten.
    """
    with torch.device("meta"):
        module = made()
    if any(True for _ in module.buffers()):
        raise RuntimeError(f"{type(module).__name__} has buffers, which would be left without values.")
    module.to_empty(device="cpu")
    noise = torch.randn(_NOISE_LENGTH, generator=torch.Generator().manual_seed(0))
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        flat = parameter.view(-1)
        scaled = noise * parameter[0].numel() ** -0.5
        for start in range(0, flat.numel(), _NOISE_LENGTH):
            part = flat[start : start + _NOISE_LENGTH]
            part.copy_(scaled[: part.numel()])
    return module


def _stable_diffusion(settings: Settings) -> Any:
    config = TINY_UNET if settings.tiny else SD15_UNET
    unet = with_noise(lambda: UNet2DConditionModel(**config))
    return build_stable_diffusion(unet, settings.prompt)


def _tiny(family: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return DiffusionPipeline.from_pretrained(write_family_checkpoint(folder, family))


def _audioldm2(settings: Settings) -> Any:
    pipe = _tiny("audioldm2")
    if not settings.tiny:
        clap_width, t5_width, gpt2_width = pipe.text_encoder.config.projection_dim, 1024, 768
        language_model = GPT2LMHeadModel(
            GPT2Config(n_embd=gpt2_width, n_head=12, n_layer=1, vocab_size=50, n_positions=512)
        )
        language_model.config.max_new_tokens = 8
        pipe.register_modules(
            unet=with_noise(lambda: AudioLDM2UNet2DConditionModel(**AUDIOLDM2_UNET)),
            text_encoder_2=_t5(t5_width, pipe.tokenizer_2),
            projection_model=AudioLDM2ProjectionModel(clap_width, t5_width, gpt2_width),
            language_model=language_model,
        )
    return pipe


def _stable_audio(settings: Settings) -> Any:
    pipe = _tiny("stable-audio")
    if not settings.tiny:
        width = 768
        pipe.tokenizer.model_max_length = 128
        pipe.register_modules(
            transformer=with_noise(lambda: StableAudioDiTModel(**STABLE_AUDIO_DIT)),
            text_encoder=_t5(width, pipe.tokenizer),
            projection_model=StableAudioProjectionModel(width, width, 0, 512),
            vae=AutoencoderOobleck(
                encoder_hidden_size=4,
                downsampling_ratios=[2, 4, 4, 8, 8],
                decoder_channels=4,
                decoder_input_channels=64,
                audio_channels=2,
                channel_multiples=[1, 1, 1, 1, 1],
                sampling_rate=44100,
            ),
        )
    return pipe


def _t5(width: int, tokenizer: Any) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    )


SUBJECTS: dict[str, Subject] = {
    "sd15": Subject(
        "The U-Net of Stable Diffusion 1.5 (860 million weights), latents 32 x 128",
        _stable_diffusion,
        {"height": 256, "width": 1024, "guidance_scale": 7.5},
        {"height": 256, "width": 64, "guidance_scale": 7.5},  # attnviz gives no other height seconds and hertz
        sites=r".*\.attn2",
        tools=("none", "attnviz", "daam", "attention-map-diffusers"),
    ),
    "audioldm2": Subject(
        "The U-Net of AudioLDM2 (347 million weights), 10.24 s: latents 256 x 16",
        _audioldm2,
        {"audio_length_in_s": 10.24, "guidance_scale": 3.5},
        {"audio_length_in_s": 2.56, "guidance_scale": 3.5},
        sites=r".*\.attentions\.(2|5|8|11)\.transformer_blocks\.0\.attn2",
        latents="audios",
        time_rows=True,
    ),
    "stable-audio": Subject(
        "The transformer of Stable Audio Open (1 057 million weights), 1 024 latents: 47.55 s",
        _stable_audio,
        {"guidance_scale": 7.0},
        {"guidance_scale": 7.0},
        sites=r"transformer_blocks\.\d+\.attn2",
        denoiser="transformer",
        latents="audios",
        more_memory=64.0,
    ),
}
"""Measured models by name."""
