"""A Stable Diffusion pipeline with random weights, built locally in seconds."""

from __future__ import annotations

import re
from time import perf_counter
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from overhead_parts.settings import Settings

_NOISE_LENGTH = 1_048_573  # a prime, so that rows of weight matrices do not repeat


class TimedScheduler(DDIMScheduler):
    """DDIM scheduler that measures the time of each denoiser call.

    The pipeline calls `scale_model_input` immediately before the U-Net and `step` immediately after it, so the
    time includes the U-Net and all of its hooks, without changing a module that a tool may inspect.
    """

    call_seconds: list[float]
    _started: float

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Start the clock."""
        synchronize(sample.device)
        self._started = perf_counter()
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int,
        sample: torch.Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Stop the clock, then step."""
        synchronize(sample.device)
        self.call_seconds.append(perf_counter() - self._started)
        return super().step(model_output, timestep, sample, eta=eta, generator=generator, return_dict=return_dict)


def synchronize(device: torch.device) -> None:
    """Wait for the accelerator, if any."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def build_pipeline(settings: Settings) -> StableDiffusionPipeline:
    """Build a pipeline with the real U-Net, and small text encoder and VAE of compatible shapes.

    Parameters
    ----------
    settings : Settings
        Sizes, device and dtype.

    Returns
    -------
    diffusers.StableDiffusionPipeline
        Pipeline with seeded weights on the device, without a progress bar.
    """
    generator = torch.Generator().manual_seed(0)
    width = settings.unet["cross_attention_dim"]
    dtype = getattr(torch, settings.dtype)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**settings.unet)
    unet = _placed(unet.to_empty(device=settings.device), settings.device, dtype)
    _fill(unet, generator)
    tokenizer = build_tokenizer(settings.prompt)
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=4,
        latent_channels=4,
    )
    scheduler = TimedScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.call_seconds = []
    pipe = StableDiffusionPipeline(
        vae=_placed(vae, settings.device, dtype),
        text_encoder=_placed(text_encoder, settings.device, dtype),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_tokenizer(prompt: str) -> CLIPTokenizer:
    """Create a byte-pair tokenizer in which every word of `prompt` is one token, as common words in CLIP."""
    merges: list[tuple[str, str]] = []
    words = list(dict.fromkeys(re.findall(r"[a-z]+", prompt.lower())))
    letters = sorted(set("".join(words)) | set(",.!?'"))
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            vocabulary.append(pieces[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    indices = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    return CLIPTokenizer(vocab=indices, merges=merges, model_max_length=77)


def _placed(module: torch.nn.Module, device: str, dtype: torch.dtype) -> Any:
    module = module.eval().requires_grad_(False).to(device)
    return module if dtype == torch.float32 else module.to(dtype)


@torch.no_grad()
def _fill(module: torch.nn.Module, generator: torch.Generator) -> None:
    # Copying one block of noise over 860 million weights takes one second; drawing all takes ten.
    noise = torch.randn(_NOISE_LENGTH, generator=generator)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        flat = parameter.view(-1)
        scaled = (noise * parameter[0].numel() ** -0.5).to(parameter.device, parameter.dtype)
        for start in range(0, flat.numel(), _NOISE_LENGTH):
            part = flat[start : start + _NOISE_LENGTH]
            part.copy_(scaled[: part.numel()])
