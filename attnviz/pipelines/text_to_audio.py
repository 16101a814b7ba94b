"""Text to audio."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.pipelines import calls, inputs
from attnviz.pipelines.guidance import guided_within
from attnviz.pipelines.mixin import DEFAULT_SECONDS, AuffusionMixin, OutputType


class AuffusionPipeline(AuffusionMixin, StableDiffusionPipeline):
    """Auffusion: a prompt in, audio out. The loop is ``StableDiffusionPipeline``'s own."""

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
            What is to be heard.
        duration : float, optional
            Seconds of audio kept, in (0, width x 10 ms]; 10 s, or less where `width` holds less.
        height, width : int
            Image size: mel bands (those of the vocoder) and frames of 10 ms. Multiples of the VAE's factor.
        num_inference_steps : int, optional
            Denoising steps. PNDM makes one more call than steps. None: what the checkpoint recommends; 100, the
            authors' number, where it recommends nothing.
        guidance_scale : float, optional
            Classifier-free guidance; in effect above 1. None: what the checkpoint recommends, or the authors' 7.5.
        guidance_interval : (float, float), optional
            Lowest and highest timestep with guidance, as fractions of the training timesteps; see
            `attnviz.pipelines.guidance`. None: what the checkpoint recommends, or (0, 1): all timesteps.
        negative_prompt : str or list of str, optional
            Encoded like a prompt and used in place of the unconditional embedding; it may be empty.
        num_images_per_prompt : int
            Results for each prompt.
        output_type : {"audio", "latent"}
            ``"latent"`` skips decoding.
        return_dict : bool
            Return an `AuffusionOutput`; a tuple otherwise.
        **diffusers_arguments
            Anything else ``StableDiffusionPipeline.__call__`` takes: ``generator``, ``latents``,
            ``callback_on_step_end``, ``guidance_rescale``, ...

        Returns
        -------
        AuffusionOutput or tuple

        Raises
        ------
        PromptError
            On an empty prompt or negative prompts that do not match.
        AudioError
            On a size or duration out of range.
        AttnVizError
            On another argument that cannot be used, or that there is not; all before any model runs.

        Notes
        -----
        Differences from the original: over-long prompts are cut before the encoder with a warning, audio
        is float32 and not 16-bit integers, and several images per prompt get an unconditional embedding
        each.
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
