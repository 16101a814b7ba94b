"""Inpainting: regenerate part of a clip, either a time span or any part of its spectrogram."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.configuration_utils import FrozenDict
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents
from scipy.ndimage import distance_transform_edt

from attnviz.arguments import public
from attnviz.audio import MEL, load_audio, peak_normalize
from attnviz.audio.files import AudioSource
from attnviz.models.pipelines import calls, inputs
from attnviz.models.pipelines.guidance import guided_within
from attnviz.models.pipelines.joining import join_kept
from attnviz.models.pipelines.mixin import AuffusionMixin, OutputType, warn_of_clipping, warn_of_silence
from attnviz.models.pipelines.output import AuffusionOutput
from attnviz.models.pipelines.sources import mask_image, read_sources


class AuffusionInpaintPipeline(AuffusionMixin, StableDiffusionInpaintPipeline):
    """Auffusion's inpainting, with the loop of ``StableDiffusionInpaintPipeline``."""

    @torch.no_grad()
    @public
    def __call__(
        self,
        prompt: str | list[str],
        audio: AudioSource | list[AudioSource],
        *,
        span: tuple[float, float] | None = None,
        mask: np.ndarray | torch.Tensor | None = None,
        context: float | None = None,
        normalize: bool | None = None,
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
        """Regenerate part of a clip.

        Parameters
        ----------
        prompt : str or list of str
            Text that describes the desired sound.
        audio : path, array or tensor, or a list with one for each prompt
            See `AuffusionAudioToAudioPipeline`.
        span : (float, float), optional
            Start and end, in seconds, of the time to regenerate. Give exactly one of `span` and `mask`. The model
            regenerates whole latent columns, of 80 ms with a VAE factor of 8: those whose earliest frame is in the
            span.
        mask : array, shape (256, width), optional
            True, or 1, where the spectrogram is regenerated; lowest band first, like
            ``AuffusionOutput.spectrograms``. A latent cell (8 bands by 80 ms at a factor of 8) is regenerated if
            its earliest frame and highest band is in the mask (the rule of diffusers).
        context : float, optional
            Seconds of the clip before and after the regenerated part that the model sees; the rest is replaced by
            silence. Infinity uses the whole clip. By default, the recommendation of the checkpoint, or the whole
            clip. See Notes.
        normalize : bool, optional
            Scale the clip to a peak of 0.95 for the model, or keep its own level. ``audios`` always have the level
            of the clip. By default, the recommendation of the checkpoint, or True.
        strength : float, optional
            See `AuffusionAudioToAudioPipeline`; for the masked part. By default, the recommendation of the
            checkpoint, or 1.
        num_inference_steps, guidance_scale, guidance_interval
            See `AuffusionPipeline`. By default, the recommendation of the checkpoint for this edit
            (``"inpaint"``).
        duration, width, negative_prompt, num_images_per_prompt
            See `AuffusionAudioToAudioPipeline`.
        output_type, return_dict
            See `AuffusionPipeline`.
        **diffusers_arguments
            Further arguments of ``StableDiffusionInpaintPipeline.__call__``.

        Returns
        -------
        AuffusionOutput or tuple
            In ``audios``, the kept part is bit-identical to the original waveform; see
            `attnviz.models.pipelines.joining`. Spectrograms and images show the whole clip as generated, at the
            level seen by the model; outside the mask, they are the VAE's reconstruction.

        Raises
        ------
        PromptError, AudioError, AttnVizError
            If the prompt, clip, mask, span, context, duration, strength or another argument is invalid or unknown.
            Everything is checked before any model runs.

        Notes
        -----
        Differences from the original: `context` and `normalize`, which have the authors' values unless the
        checkpoint recommends others. The prompt describes the regenerated part, but a model trained on captions of
        whole clips applies it to everything that it sees. The more of the clip it sees, the more often it leaves
        that part empty, or continues the sounds around it. A model trained on clips at their own level does not
        know clips scaled to a peak, which are louder. See ``results/editing`` for measurements.
        """
        calls.check_arguments(self.__call__, super().__call__, diffusers_arguments)
        inputs.check_output_type(output_type)
        prompts = inputs.check_prompts(prompt, negative_prompt)
        own = self.recommended.settle(
            {"strength": strength, "context": context, "normalize": normalize}, "inpaint"
        )
        strength = inputs.check_strength(own["strength"])
        context = inputs.check_context(own["context"])
        normalize = inputs.check_switch("normalize", own["normalize"])
        steps, guidance_scale, interval = self._sampling(
            num_inference_steps, guidance_scale, guidance_interval, "inpaint"
        )
        num_images_per_prompt = inputs.check_count("num_images_per_prompt", num_images_per_prompt)
        steps = calls.check_steps(self.scheduler, steps, diffusers_arguments, strength)
        _, width = inputs.check_size(MEL.n_mels, width, self.vae_scale_factor, bands=None, latent_only=True)
        n, factor = prompts * num_images_per_prompt, self.vae_scale_factor
        shape = (n, self.vae.config.latent_channels, MEL.n_mels // factor, width // factor)
        calls.check_latents(diffusers_arguments, shape)
        clips = list(audio) if isinstance(audio, list | tuple) else [audio]
        waveforms = [load_audio(clip) for clip in clips]
        images, seconds = read_sources([*waveforms], prompts, width, duration, normalize=normalize)
        drawn_anew = mask_image(span, mask, width=width, seconds=seconds, factor=self.vae_scale_factor)
        self._duration = inputs.check_duration(duration, width, seconds)
        near = _near(drawn_anew, context, factor)
        with _counted_as_plain(self.unet, self.vae), guided_within(self, interval):
            latents = super().__call__(
                prompt=inputs.untupled(prompt),
                image=(images * near).repeat_interleave(num_images_per_prompt, dim=0),
                mask_image=drawn_anew,
                height=images.shape[-2],
                width=width,
                strength=strength,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                negative_prompt=inputs.untupled(negative_prompt),
                num_images_per_prompt=num_images_per_prompt,
                output_type="latent",
                return_dict=False,
                **diffusers_arguments,
            )[0]
        if not bool(near.all()):
            whole = self._encoded(images).repeat_interleave(num_images_per_prompt, dim=0)
            latents = torch.where(drawn_anew[..., ::factor, ::factor].to(latents.device) > 0, latents, whole)
        output = self._finish(latents, output_type, return_dict=True, check_level=False)
        if output_type == "audio":
            kept = [waveforms[min(i // num_images_per_prompt, len(waveforms) - 1)] for i in range(n)]
            _join(output, kept, drawn_anew[0, 0].numpy(), factor, normalized=normalize)
        return output if return_dict else output.to_tuple()

    def _encoded(self, images: torch.Tensor) -> torch.Tensor:
        """Return the clean latents of images in [0, 1], without sampling."""
        pixels = (2 * images - 1).to(self._execution_device, self.vae.dtype)
        return retrieve_latents(self.vae.encode(pixels), sample_mode="argmax") * self.vae.config.scaling_factor


def _near(drawn_anew: torch.Tensor, context: float, factor: int) -> torch.Tensor:
    """Return the columns of the image that the model sees, shape (width,): regenerated part and context."""
    columns = drawn_anew[0, 0, ::factor, ::factor].any(dim=0).repeat_interleave(factor)
    away = distance_transform_edt(~columns.numpy())  # in columns: 1 for the neighbours of regenerated ones
    return torch.from_numpy(away <= context * MEL.sampling_rate / MEL.hop_length)


def _join(
    output: AuffusionOutput, originals: list[np.ndarray], image: np.ndarray, factor: int, *, normalized: bool
) -> None:
    """Restore the originals at their own level in the kept parts; warn about silence and clipping."""
    cells = image[::factor, ::factor].repeat(factor, axis=0).repeat(factor, axis=1)
    mask = ((image > 0) & (cells > 0))[::-1]
    made = output.audios or []
    gains = [_level(original) if normalized else 1.0 for original in originals]
    drawn = [(audio * gain).clip(-1, 1) for audio, gain in zip(made, gains, strict=True)]
    # Before joining, because a cross-fade would add the level of the surrounding clip. Attenuating does not undo
    # clipping.
    anew = np.repeat(mask.any(axis=0), MEL.hop_length)
    warn_of_silence([audio[anew[: len(audio)]] for audio in drawn], "The regenerated part")
    loudest = [audio * max(gain, 1.0) for audio, gain in zip(made, gains, strict=True)]
    warn_of_clipping([audio[anew[: len(audio)]] for audio in loudest], "The regenerated part")
    output.audios = [join_kept(original, audio, mask) for original, audio in zip(originals, drawn, strict=True)]


def _level(original: np.ndarray) -> float:
    """Return the level of a clip relative to that seen by the model."""
    seen = np.abs(peak_normalize(original)).max()
    return float(np.abs(original).max() / seen) if seen else 1.0


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
