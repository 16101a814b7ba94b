"""Text to audio: generate audio from a prompt."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.models.pipelines import calls, inputs
from attnviz.models.pipelines.guidance import guided_within
from attnviz.models.pipelines.mixin import DEFAULT_SECONDS, AuffusionMixin, OutputType


class AuffusionPipeline(AuffusionMixin, StableDiffusionPipeline):
    """Auffusion's text-to-audio generation, with the loop of ``StableDiffusionPipeline``."""

    @torch.no_grad()
    @public
    def __call__(
        self,
        prompt: str | list[str],
        *,
        duration: float | None = None,
        height: int = MEL.n_mels,
        width: int = 1024,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        output_type: OutputType = "audio",
        return_dict: bool = True,
        **diffusers_arguments: Any,
    ) -> Any:
        """Generate audio from text.

        Parameters
        ----------
        prompt : str or list of str
            Text that describes the desired sound.
        duration : float, optional
            Seconds of audio to keep, in (0, width x 10 ms]. By default, 10 s or the duration of `width`.
        height, width : int
            Image size: mel bands (those of the vocoder) and frames of 10 ms. Multiples of the VAE's factor.
        num_inference_steps : int, optional
            Number of denoising steps (PNDM makes one more call). By default, the recommendation of the checkpoint,
            or the authors' 100.
        guidance_scale : float, optional
            Classifier-free guidance scale, effective above 1. By default, the recommendation of the checkpoint, or
            the authors' 7.5.
        guidance_interval : (float, float), optional
            Lowest and highest timestep with guidance, as fractions of the training timesteps; see
            `attnviz.models.pipelines.guidance`. By default, the recommendation of the checkpoint, or (0, 1) for
            all timesteps.
        negative_prompt : str or list of str, optional
            Encoded like a prompt and used instead of the unconditional embedding; may be empty.
        num_images_per_prompt : int
            Number of samples per prompt.
        output_type : {"audio", "latent"}
            ``"latent"`` skips decoding.
        return_dict : bool
            Return an `AuffusionOutput` if True, and a tuple otherwise.
        **diffusers_arguments
            Further arguments of ``StableDiffusionPipeline.__call__``: ``generator``, ``latents``,
            ``callback_on_step_end``, ``guidance_rescale``, ...

        Returns
        -------
        AuffusionOutput or tuple

        Raises
        ------
        PromptError
            If the prompt is empty, or negative prompts do not match.
        AudioError
            If a size or duration is out of range.
        AttnVizError
            If another argument is invalid or unknown. Everything is checked before any model runs.

        Notes
        -----
        Differences from the original: over-long prompts are truncated before the encoder with a warning, audio is
        float32 instead of 16-bit integers, and each of several images per prompt has its own unconditional
        embedding.
        """
        calls.check_arguments(self.__call__, super().__call__, diffusers_arguments)
        inputs.check_output_type(output_type)
        prompts = inputs.check_prompts(prompt, negative_prompt)
        steps, guidance_scale, interval = self._sampling(num_inference_steps, guidance_scale, guidance_interval)
        num_images_per_prompt = inputs.check_count("num_images_per_prompt", num_images_per_prompt)
        steps = calls.check_steps(self.scheduler, steps, diffusers_arguments)
        bands = None if self.vocoder is None else self.vocoder.num_mels
        factor = self.vae_scale_factor
        height, width = inputs.check_size(height, width, factor, bands=bands, latent_only=output_type == "latent")
        n, channels = prompts * num_images_per_prompt, self.unet.config.in_channels
        calls.check_latents(diffusers_arguments, (n, channels, height // factor, width // factor))
        self._duration = inputs.check_duration(duration, width, DEFAULT_SECONDS)
        with guided_within(self, interval):
            latents = super().__call__(
                prompt=inputs.untupled(prompt),
                height=height,
                width=width,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                negative_prompt=inputs.untupled(negative_prompt),
                num_images_per_prompt=num_images_per_prompt,
                output_type="latent",
                return_dict=False,
                **diffusers_arguments,
            )[0]
        return self._finish(latents, output_type, return_dict)
