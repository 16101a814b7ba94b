"""Audio to audio: noise a clip to a given strength, and denoise it towards a prompt."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.audio.files import AudioSource
from attnviz.models.pipelines import calls, inputs
from attnviz.models.pipelines.guidance import guided_within
from attnviz.models.pipelines.mixin import AuffusionMixin, OutputType
from attnviz.models.pipelines.sources import read_sources


class AuffusionAudioToAudioPipeline(AuffusionMixin, StableDiffusionImg2ImgPipeline):
    """Auffusion's style transfer. The loop is ``StableDiffusionImg2ImgPipeline``'s own (SDEdit)."""

    @torch.no_grad()
    @public
    def __call__(
        self,
        prompt: str | list[str],
        audio: AudioSource | list[AudioSource],
        *,
        strength: float | None = None,
        duration: float | None = None,
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
        """Edit a clip towards a prompt.

        Parameters
        ----------
        prompt : str or list of str
            Text that describes the desired sound.
        audio : path, array or tensor, or a list with one for each prompt
            A file of any sampling rate and channel count, or a 1-D waveform at 16 kHz. Normalised to a peak
            of 0.95; cut or padded to `width` columns.
        strength : float, optional
            Fraction of the noise schedule to run, in (0, 1]; 1 ignores the clip. Of the steps,
            ``int(num_inference_steps * strength)`` are run, which must be at least one. By default, the
            recommendation of the checkpoint, or 0.8.
        duration : float, optional
            Seconds of audio to keep, at most those of `width` columns; audio after the end of the clip is
            generated. By default, the length of the clip, up to `width` columns. Required for clips of different
            lengths.
        width : int
            Frames of 10 ms of the spectrogram image.
        num_inference_steps, guidance_scale, guidance_interval
            See `AuffusionPipeline`. By default, the recommendation of the checkpoint for this edit (``"style"``).
        negative_prompt, num_images_per_prompt, output_type, return_dict
            See `AuffusionPipeline`.
        **diffusers_arguments
            Further arguments of ``StableDiffusionImg2ImgPipeline.__call__``.

        Returns
        -------
        AuffusionOutput or tuple

        Raises
        ------
        PromptError, AudioError, AttnVizError
            If the prompt, clip, duration, strength or another argument is invalid or unknown. Everything is
            checked before any model runs.
        """
        calls.check_arguments(self.__call__, super().__call__, diffusers_arguments)
        inputs.check_output_type(output_type)
        prompts = inputs.check_prompts(prompt, negative_prompt)
        strength = inputs.check_strength(self.recommended.settle({"strength": strength}, "style")["strength"])
        steps, guidance_scale, interval = self._sampling(
            num_inference_steps, guidance_scale, guidance_interval, "style"
        )
        num_images_per_prompt = inputs.check_count("num_images_per_prompt", num_images_per_prompt)
        steps = calls.check_steps(self.scheduler, steps, diffusers_arguments, strength)
        _, width = inputs.check_size(MEL.n_mels, width, self.vae_scale_factor, bands=None, latent_only=True)
        images, seconds = read_sources(audio, prompts, width, duration)
        self._duration = inputs.check_duration(duration, width, seconds)
        with guided_within(self, interval):
            latents = super().__call__(
                prompt=inputs.untupled(prompt),
                image=images.repeat_interleave(num_images_per_prompt, dim=0),
                strength=strength,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                negative_prompt=inputs.untupled(negative_prompt),
                num_images_per_prompt=num_images_per_prompt,
                output_type="latent",
                return_dict=False,
                **diffusers_arguments,
            )[0]
        return self._finish(latents, output_type, return_dict)
