"""Audio to audio: a clip, noised to a strength, and denoised towards a prompt."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline

from attnviz.audio import MEL
from attnviz.pipelines import inputs
from attnviz.pipelines.mixin import AuffusionMixin, OutputType
from attnviz.pipelines.sources import AudioSource, read_sources


class AuffusionAudioToAudioPipeline(AuffusionMixin, StableDiffusionImg2ImgPipeline):
    """Auffusion's style transfer. The loop is ``StableDiffusionImg2ImgPipeline``'s own (SDEdit)."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        audio: AudioSource | list[AudioSource],
        *,
        strength: float = 0.8,
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
        """Turn a clip towards a prompt.

        Parameters
        ----------
        prompt : str or list of str
            What is to be heard.
        audio : path, array or tensor, or a list with one for each prompt
            A file of any sample rate and channel count, or a 1-D waveform at 16 kHz. Normalised to a peak
            of 0.95; cut or padded to `width` columns.
        strength : float
            Share of the noise schedule that is run again, in [0, 1]: 0 keeps the clip, 1 forgets it.
        duration : float, optional
            Seconds of audio kept; the clip's own length, or what `width` columns hold, where left out.
        width : int
            Frames of 10 ms of the spectrogram image.
        num_inference_steps, guidance_scale, negative_prompt, num_images_per_prompt, output_type, return_dict
            As in `AuffusionPipeline`.
        **diffusers_arguments
            Anything else ``StableDiffusionImg2ImgPipeline.__call__`` takes.

        Returns
        -------
        AuffusionOutput or tuple

        Raises
        ------
        PromptError, AudioError, AttnVizError
            On a prompt, clip, duration or strength that cannot be used; before any model runs.
        """
        inputs.check_output_type(output_type)
        prompts = inputs.check_prompts(prompt, negative_prompt)
        inputs.check_strength(strength, num_inference_steps)
        inputs.check_size(MEL.n_mels, width, self.vae_scale_factor, bands=None, latent_only=True)
        images, seconds = read_sources(audio, prompts, width)
        self._duration = inputs.check_duration(duration, width, seconds)
        latents = super().__call__(
            prompt=prompt,
            image=images.repeat_interleave(num_images_per_prompt, dim=0),
            strength=strength,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            output_type="latent",
            return_dict=False,
            **diffusers_arguments,
        )[0]
        return self._finish(latents, output_type, return_dict)
