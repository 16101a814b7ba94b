"""Tango and TangoFlux as their authors publish them, narrow: modules, methods, and the order of rows.

Restated from declare-lab/tango (models.py) and declare-lab/TangoFlux (tangoflux/model.py). A trace meets there
names of attributes and methods, [unconditional, conditional] rows, the mask, and the axes of the latents.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import T5Config, T5EncoderModel

from attnviz.testing import make_tokenizer

WIDTH = 24


class _Text(nn.Module):
    """The encoding that both models share: T5, longest padding, an empty prompt padded to the same length."""

    def __init__(self):
        super().__init__()
        self.tokenizer = make_tokenizer("t5")
        self.text_encoder = T5EncoderModel(
            T5Config(vocab_size=len(self.tokenizer), d_model=WIDTH, d_kv=6, d_ff=48, num_layers=1, num_heads=4)
        )

    def empty_prompts(self, prompt):
        return len(prompt)

    def encode_text(self, prompt):
        batch = self.tokenizer(prompt, padding=True, truncation=True, max_length=64, return_tensors="pt")
        states = self.text_encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
        return states, batch.attention_mask == 1

    def encode_text_classifier_free(self, prompt, num_samples_per_prompt=1):
        states, mask = self.encode_text(prompt)
        empty = self.tokenizer(
            [""] * self.empty_prompts(prompt),
            max_length=states.shape[1],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        negative = self.text_encoder(input_ids=empty.input_ids, attention_mask=empty.attention_mask)[0]
        rows = [each.repeat_interleave(num_samples_per_prompt, 0) for each in (negative, states)]
        masks = [each.repeat_interleave(num_samples_per_prompt, 0) for each in (empty.attention_mask == 1, mask)]
        return torch.cat(rows), torch.cat(masks)


class AudioDiffusion(_Text):
    """Tango: the U-Net of Stable Diffusion over latents of (time, frequency), published as 8 x 256 x 16."""

    frames = 64

    def __init__(self):
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=None,
            in_channels=8,
            out_channels=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )

    @torch.no_grad()
    def inference(self, prompt, inference_scheduler, num_steps=20, guidance_scale=3, num_samples_per_prompt=1):
        guided = guidance_scale > 1.0
        if guided:
            embeds, mask = self.encode_text_classifier_free(prompt, num_samples_per_prompt)
        else:
            embeds, mask = self.encode_text(prompt)
            embeds = embeds.repeat_interleave(num_samples_per_prompt, 0)
            mask = mask.repeat_interleave(num_samples_per_prompt, 0)
        inference_scheduler.set_timesteps(num_steps)
        latents = torch.randn(len(prompt) * num_samples_per_prompt, 8, self.frames, 16)
        for t in inference_scheduler.timesteps:
            given = torch.cat([latents] * 2) if guided else latents
            noise = self.unet(given, t, encoder_hidden_states=embeds, encoder_attention_mask=mask).sample
            if guided:
                without, with_text = noise.chunk(2)
                noise = without + guidance_scale * (with_text - without)
            latents = inference_scheduler.step(noise, t, latents).prev_sample
        return latents


class _Posterior:
    def __init__(self, moments):
        self.mean = moments.chunk(2, dim=1)[0]

    def mode(self):
        return self.mean


class MelAutoencoder(nn.Module):
    """AudioLDM's auto-encoder, narrow: log-mel (time, bands) to latents a quarter as long and as high."""

    scale_factor = 0.75

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 16, 4, stride=4)

    def encode(self, mel):
        return _Posterior(self.convolution(mel))


class WaveAutoencoder(nn.Module):
    """Stable Audio's auto-encoder, narrow and shallow: (channels, samples) to 64 channels of latents."""

    config = SimpleNamespace(audio_channels=2)

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(2, 128, 2048, stride=2048)

    def encode(self, waves):
        return SimpleNamespace(latent_dist=_Posterior(self.convolution(waves)))


class Tango:
    """The published class around the model."""

    def __init__(self):
        self.model = AudioDiffusion().eval()
        self.vae = MelAutoencoder().eval()
        self.scheduler = DDIMScheduler(clip_sample=False)

    def __call__(self, prompt, guidance=3):
        torch.manual_seed(0)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return self.model.inference(prompts, self.scheduler, 2, guidance)


class TangoFlux(_Text):
    """TangoFlux: Flux's joint blocks, then its single blocks, over [text, duration, audio]."""

    def __init__(self):
        super().__init__()
        self.audio_seq_len = 33
        self.noise_scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
        self.fc = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.duration_emebdder = nn.Linear(1, WIDTH)  # the name is theirs
        self.transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=False,
            axes_dims_rope=(4, 6, 6),
        )

    def empty_prompts(self, prompt):
        return 1

    def encode_duration(self, duration):
        return self.duration_emebdder(duration.float()[:, None]).reshape(len(duration), 1, -1)

    @torch.no_grad()
    def inference_flow(
        self, prompt, num_inference_steps=50, guidance_scale=3, duration=10, seed=0, num_samples_per_prompt=1
    ):
        """Its authors tested it for one prompt: latents, and rows of the duration, are those of one."""
        torch.manual_seed(seed)
        rows = num_samples_per_prompt
        prompt = prompt if isinstance(prompt, list) else [prompt]
        if not isinstance(duration, torch.Tensor):
            duration = torch.tensor([duration])
        seconds = self.encode_duration(duration)
        guided = guidance_scale > 1.0
        if guided:
            rows = 2 * num_samples_per_prompt
            states, mask = self.encode_text_classifier_free(prompt, num_samples_per_prompt=num_samples_per_prompt)
            seconds = seconds.repeat(rows, 1, 1)
        else:  # theirs gives encode_text an argument that it has not
            states, mask = self.encode_text(prompt)
            seconds = seconds.expand(len(states), 1, -1)
        pooled = self.fc(torch.where(mask[..., None], states, torch.nan).nanmean(dim=1))
        states = torch.cat([states, seconds], dim=1)
        self.noise_scheduler.set_timesteps(
            sigmas=[1 - i / num_inference_steps for i in range(num_inference_steps)]
        )
        latents = torch.randn(num_samples_per_prompt, self.audio_seq_len, self.transformer.config.in_channels)
        places = torch.arange(self.audio_seq_len)[None, :, None].repeat(rows, 1, 3)
        for t in self.noise_scheduler.timesteps:
            noise = self.transformer(
                hidden_states=torch.cat([latents] * 2) if guided else latents,
                timestep=torch.tensor([t / 1000]),
                guidance=None,
                pooled_projections=pooled,
                encoder_hidden_states=states,
                txt_ids=torch.zeros(rows, states.shape[1], 3),
                img_ids=places,
                return_dict=False,
            )[0]
            if guided:
                without, with_text = noise.chunk(2)
                noise = without + guidance_scale * (with_text - without)
            latents = self.noise_scheduler.step(noise, t, latents).prev_sample
        return latents


class TangoFluxInference:
    """The published class around the model."""

    def __init__(self):
        self.model = TangoFlux().eval()
        self.vae = WaveAutoencoder().eval()

    def __call__(self, prompt, guidance=3):
        torch.manual_seed(0)
        return self.model.inference_flow(prompt, 2, guidance, duration=1.0)
