"""Inpainting: part of a clip, a time span or any part of its spectrogram, drawn anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.configuration_utils import FrozenDict

from attnviz.audio import MEL
from attnviz.pipelines import calls, inputs
from attnviz.pipelines.mixin import AuffusionMixin, OutputType
from attnviz.pipelines.sources import AudioSource, mask_image, read_sources


class AuffusionInpaintPipeline(AuffusionMixin, StableDiffusionInpaintPipeline):
    """Auffusion's inpainting. The loop is ``StableDiffusionInpaintPipeline``'s own."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        audio: AudioSource | list[AudioSource],
        *,
        span: tuple[float, float] | None = None,
        mask: np.ndarray | torch.Tensor | None = None,
        strength: float = 1.0,
        duration: float | None = None,
        width: int = 1024,
        num_inference_steps: int = 100,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        output_type: OutputType = "audio",
        return_dict: bool = True,
        **diffusers_arguments: Any,
    ) -> Any:
        """Draw part of a clip anew.

        Parameters
        ----------
        prompt : str or list of str
            What is to be heard.
        audio : path, array or tensor, or a list with one for each prompt
            As in `AuffusionAudioToAudioPipeline`.
        span : (float, float), optional
            Start and end, in seconds, of the time to draw anew. Exactly one of `span` and `mask` is given. The
            model redraws whole latent columns, of 80 ms where the VAE's factor is 8: those whose
            earliest frame lies in the span.
        mask : array, shape (256, width), optional
            True, or 1, where the spectrogram is drawn anew; lowest band first, like
            ``AuffusionOutput.spectrograms``. A latent cell (8 bands by 80 ms at a factor of 8) is drawn anew as
            a whole, where its earliest frame and highest band is in the mask (diffusers' own rule).
        strength : float
            As in `AuffusionAudioToAudioPipeline`, for the masked part.
        duration, width, num_inference_steps, guidance_scale, negative_prompt, num_images_per_prompt
            As in `AuffusionAudioToAudioPipeline`.
        output_type, return_dict
            As in `AuffusionPipeline`.
        **diffusers_arguments
            Anything else ``StableDiffusionInpaintPipeline.__call__`` takes.

        Returns
        -------
        AuffusionOutput or tuple
            The whole clip as the model redraws it; outside the mask it is the VAE's reconstruction.

        Raises
        ------
        PromptError, AudioError, AttnVizError
            On a prompt, clip, mask, span, duration, strength or other argument that cannot be used, or that
            there is not; before any model runs.
        """
        calls.check_arguments(self.__call__, super().__call__, diffusers_arguments)
        inputs.check_output_type(output_type)
        prompts = inputs.check_prompts(prompt, negative_prompt)
        strength = inputs.check_strength(strength)
        guidance_scale = inputs.check_guidance(guidance_scale)
        num_images_per_prompt = inputs.check_count("num_images_per_prompt", num_images_per_prompt)
        num_inference_steps = calls.check_steps(self.scheduler, num_inference_steps, diffusers_arguments, strength)
        _, width = inputs.check_size(MEL.n_mels, width, self.vae_scale_factor, bands=None, latent_only=True)
        n, factor = prompts * num_images_per_prompt, self.vae_scale_factor
        shape = (n, self.vae.config.latent_channels, MEL.n_mels // factor, width // factor)
        calls.check_latents(diffusers_arguments, shape)
        images, seconds = read_sources(audio, prompts, width, duration)
        drawn_anew = mask_image(span, mask, width=width, seconds=seconds, factor=self.vae_scale_factor)
        self._duration = inputs.check_duration(duration, width, seconds)
        with _counted_as_plain(self.unet, self.vae):
            latents = super().__call__(
                prompt=inputs.untupled(prompt),
                image=images.repeat_interleave(num_images_per_prompt, dim=0),
                mask_image=drawn_anew,
                height=images.shape[-2],
                width=width,
                strength=strength,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                negative_prompt=inputs.untupled(negative_prompt),
                num_images_per_prompt=num_images_per_prompt,
                output_type="latent",
                return_dict=False,
                **diffusers_arguments,
            )[0]
        return self._finish(latents, output_type, return_dict)


@contextmanager
def _counted_as_plain(unet: Any, vae: Any) -> Iterator[None]:
    """Let diffusers' loop see that a U-Net takes latents alone.

    It tells so from ``in_channels == 4`` and refuses any other plain U-Net, although it takes the number of latent
    channels from the VAE. Nothing else in the loop reads that number.
    """
    config = unet.config
    if config.in_channels != vae.config.latent_channels or config.in_channels == 4:
        yield
        return
    unet._internal_dict = FrozenDict({**config, "in_channels": 4})
    try:
        yield
    finally:
        unet._internal_dict = config
