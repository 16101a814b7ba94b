"""Tango and TangoFlux as pipelines of diffusers, without their authors' packages."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    AudioPipelineOutput,
    AutoencoderKL,
    AutoencoderOobleck,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from transformers import PreTrainedTokenizerBase, SpeechT5HifiGan, T5EncoderModel

from attnviz.models.pipelines.inputs import check_count

Generators = torch.Generator | list[torch.Generator] | None

LATENT_FRAMES = 256
"""Columns of Tango's latents: 10.24 s, whatever the prompt."""


class _TextPipeline(DiffusionPipeline):
    """What both models do with a prompt, and the shape of what they return."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: T5EncoderModel

    def encode_prompt(
        self, prompt: list[str], num_waveforms_per_prompt: int, guided: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode prompts with T5, padded to the longest.

        Returns
        -------
        embeds : torch.Tensor, shape (rows, tokens, width)
            If `guided`, rows of the empty prompt come first.
        mask : torch.Tensor of bool, shape (rows, tokens)
            Whether a token is one of the text.
        """
        embeds, mask = self._encoded(prompt, padding=True, max_length=self.tokenizer.model_max_length)
        if guided:
            length = embeds.shape[1]
            without, nothing = self._encoded([""] * len(prompt), padding="max_length", max_length=length)
            both = [embeds, mask, without, nothing]
            embeds, mask, without, nothing = (
                each.repeat_interleave(num_waveforms_per_prompt, dim=0) for each in both
            )
            return torch.cat([without, embeds]), torch.cat([nothing, mask])
        return tuple(each.repeat_interleave(num_waveforms_per_prompt, dim=0) for each in (embeds, mask))  # type: ignore[return-value]

    def _encoded(self, texts: list[str], **padding: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self.tokenizer(texts, truncation=True, return_tensors="pt", **padding)
        ids, mask = (batch[name].to(self._execution_device) for name in ("input_ids", "attention_mask"))
        return self.text_encoder(input_ids=ids, attention_mask=mask)[0], mask == 1

    def _noise(
        self, shape: tuple[int, ...], generator: Generators, latents: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor:
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=dtype)
        if latents.shape != shape:
            raise ValueError(f"latents have the shape {tuple(latents.shape)}; {shape} is needed.")
        return latents.to(self._execution_device, dtype)

    def _result(self, audio: torch.Tensor, output_type: str, return_dict: bool) -> Any:
        audios: Any = audio.float().cpu().numpy() if output_type == "np" else audio
        self.maybe_free_model_hooks()
        return AudioPipelineOutput(audios=audios) if return_dict else (audios,)


class TangoPipeline(_TextPipeline):
    """Tango and Tango 2: a U-Net over latents of (time, frequency), a mel VAE and HiFi-GAN.

    Parameters
    ----------
    vae : diffusers.AutoencoderKL
        Of mel spectrograms, (time, bands), the lowest band first.
    vocoder : transformers.SpeechT5HifiGan
    text_encoder : transformers.T5EncoderModel
    tokenizer : transformers.PreTrainedTokenizerBase
    unet : diffusers.UNet2DConditionModel
    scheduler : diffusers.DDPMScheduler

    Notes
    -----
    Source: Ghosal et al. 2023 (arXiv 2304.13731), Majumder et al. 2024 (arXiv 2404.09956). Differences from the
    original: noise comes from `generator`; the waveform is floating-point instead of 16 bits.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae->vocoder"

    def __init__(
        self,
        vae: AutoencoderKL,
        vocoder: SpeechT5HifiGan,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            vocoder=vocoder,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 100,
        guidance_scale: float = 3.0,
        num_waveforms_per_prompt: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
    ) -> Any:
        """Generate audio of 10.24 s.

        Parameters
        ----------
        prompt : str or sequence of str
        num_inference_steps : int
            The authors recommend 100 or 200.
        guidance_scale : float
            No guidance up to 1.
        num_waveforms_per_prompt : int
        generator : torch.Generator, optional
        latents : torch.Tensor, shape (rows, channels, 256, columns), optional
            Noise to start from.
        output_type : {"np", "pt", "latent"}
        return_dict : bool

        Returns
        -------
        diffusers.AudioPipelineOutput
            ``audios`` has the shape (rows, samples).

        Raises
        ------
        AttnVizError
            If `num_inference_steps` is not a whole number from 1 to 10 000.
        """
        num_inference_steps = check_count("num_inference_steps", num_inference_steps)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        guided = guidance_scale > 1.0
        embeds, mask = self.encode_prompt(prompts, num_waveforms_per_prompt, guided)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        bands = self.vocoder.config.model_in_dim // 2 ** (len(self.vae.config.block_out_channels) - 1)
        rows = len(prompts) * num_waveforms_per_prompt
        shape = (rows, self.unet.config.in_channels, LATENT_FRAMES, bands)
        latents = self._noise(shape, generator, latents, embeds.dtype) * self.scheduler.init_noise_sigma
        noisy = "generator" in inspect.signature(self.scheduler.step).parameters  # not every scheduler draws noise
        extra = {"generator": generator} if noisy else {}
        for t in self.progress_bar(self.scheduler.timesteps):
            given = self.scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, t)
            noise = self.unet(given, t, encoder_hidden_states=embeds, encoder_attention_mask=mask).sample
            if guided:
                without, with_text = noise.chunk(2)
                noise = without + guidance_scale * (with_text - without)
            latents = self.scheduler.step(noise, t, latents, **extra).prev_sample
        if output_type == "latent":
            return self._result(latents, output_type, return_dict)
        mel = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return self._result(self.vocoder(mel[:, 0]), output_type, return_dict)


class TangoFluxConditioner(ModelMixin, ConfigMixin):
    """The layers of TangoFlux between T5 and its transformer: the pooled text, and the embedded duration.

    Parameters
    ----------
    width : int
        Of T5's states.
    pooled_width : int
        Of the pooled text.
    max_duration : float
        Duration, in seconds, that is embedded as 1; longer ones are embedded like it.
    frequencies : int
        Sines, and cosines, of the duration.
    """

    @register_to_config
    def __init__(self, width: int, pooled_width: int, max_duration: float = 30.0, frequencies: int = 128) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(frequencies))
        self.duration = nn.Linear(2 * frequencies + 1, width)
        self.pooled = nn.Linear(width, pooled_width)
        self._longest = max_duration

    def forward(
        self, states: torch.Tensor, mask: torch.Tensor, seconds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and the pooled text.

        Parameters
        ----------
        states : torch.Tensor, shape (rows, tokens, width)
        mask : torch.Tensor of bool, shape (rows, tokens)
        seconds : torch.Tensor, shape (rows,)

        Returns
        -------
        keys : torch.Tensor, shape (rows, tokens + 1, width)
            The states, and the duration after them.
        pooled : torch.Tensor, shape (rows, pooled_width)
        """
        shares = (seconds.clamp(0, self._longest) / self._longest).to(self.weights.dtype)[:, None]
        angles = shares * self.weights * 2 * math.pi
        duration = self.duration(torch.cat([shares, angles.sin(), angles.cos()], dim=-1))
        mean = torch.where(mask[..., None], states, torch.nan).nanmean(dim=1)
        return torch.cat([states, duration[:, None]], dim=1), self.pooled(mean).relu()


class TangoFluxPipeline(_TextPipeline):
    """TangoFlux: joint attention over text, duration and latents of Stable Audio Open's auto-encoder.

    Parameters
    ----------
    vae : diffusers.AutoencoderOobleck
    text_encoder : transformers.T5EncoderModel
    tokenizer : transformers.PreTrainedTokenizerBase
    conditioner : TangoFluxConditioner
    transformer : diffusers.FluxTransformer2DModel
    scheduler : diffusers.FlowMatchEulerDiscreteScheduler
    audio_seq_len : int
        Latents of every clip, 645 of 46.4 ms as published.

    Notes
    -----
    Source: Hung et al. 2024 (arXiv 2412.21037). Differences from the original: noise comes from `generator`;
    several prompts are possible.
    """

    model_cpu_offload_seq = "text_encoder->conditioner->transformer->vae"

    def __init__(
        self,
        vae: AutoencoderOobleck,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        conditioner: TangoFluxConditioner,
        transformer: FluxTransformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        audio_seq_len: int = 645,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            conditioner=conditioner,
            transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(audio_seq_len=audio_seq_len)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 25,
        guidance_scale: float = 4.5,
        duration: float = 10.0,
        num_waveforms_per_prompt: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
    ) -> Any:
        """Generate audio.

        Parameters
        ----------
        prompt : str or sequence of str
        num_inference_steps : int
        guidance_scale : float
            No guidance up to 1.
        duration : float
            In seconds, at most 30 as published; the waveform is cut to it.
        num_waveforms_per_prompt : int
        generator : torch.Generator, optional
        latents : torch.Tensor, shape (rows, columns, channels), optional
            Noise to start from.
        output_type : {"np", "pt", "latent"}
        return_dict : bool

        Returns
        -------
        diffusers.AudioPipelineOutput
            ``audios`` has the shape (rows, channels, samples).

        Raises
        ------
        AttnVizError
            If `num_inference_steps` is not a whole number from 1 to 10 000.
        ValueError
            If `duration` is not above 0, or longer than the model makes.
        """
        num_inference_steps = check_count("num_inference_steps", num_inference_steps)
        rate = self.vae.config.sampling_rate
        longest = self.conditioner.config.max_duration
        if not 0 < duration <= longest:
            raise ValueError(f"duration={duration!r} is not in (0, {longest:g}], in seconds.")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        device, guided = self._execution_device, guidance_scale > 1.0
        embeds, mask = self.encode_prompt(prompts, num_waveforms_per_prompt, guided)
        seconds = torch.full((len(embeds),), float(duration), device=device)
        keys, pooled = self.conditioner(embeds, mask, seconds)
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        self.scheduler.set_timesteps(sigmas=sigmas, device=device)
        columns = self.config["audio_seq_len"]
        shape = (len(prompts) * num_waveforms_per_prompt, columns, self.transformer.config.in_channels)
        latents = self._noise(shape, generator, latents, embeds.dtype)
        places = torch.arange(columns, device=device)[:, None].repeat(1, 3)
        for t in self.progress_bar(self.scheduler.timesteps):
            noise = self.transformer(
                hidden_states=torch.cat([latents] * 2) if guided else latents,
                timestep=(t / 1000)[None],
                guidance=None,
                pooled_projections=pooled,
                encoder_hidden_states=keys,
                txt_ids=torch.zeros(keys.shape[1], 3, device=device),
                img_ids=places,
                return_dict=False,
            )[0]
            if guided:
                without, with_text = noise.chunk(2)
                noise = without + guidance_scale * (with_text - without)
            latents = self.scheduler.step(noise, t, latents).prev_sample
        if output_type == "latent":
            return self._result(latents, output_type, return_dict)
        waves = self.vae.decode(latents.transpose(1, 2)).sample[..., : int(duration * rate)]
        return self._result(waves, output_type, return_dict)
