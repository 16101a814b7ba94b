"""Common parts of the three Auffusion pipelines: conditioning through adapters, and latents to audio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline

from attnviz.arguments import public
from attnviz.audio import MEL, griffin_lim, image_to_mel
from attnviz.audio.levels import loudest_level, warn_if_clipped, warn_if_inaudible
from attnviz.errors import AudioError, CheckpointError, PromptError
from attnviz.models.conditioning import TextConditioner
from attnviz.models.conditioning.encoders import checked_device
from attnviz.models.pipelines import calls, checkpoints, inputs
from attnviz.models.pipelines.guidance import WHOLE
from attnviz.models.pipelines.known_sounds import KnownSounds, read_known_sounds, warn_of_unknown_sounds
from attnviz.models.pipelines.output import AuffusionOutput
from attnviz.models.pipelines.parts import read_preprocessor
from attnviz.models.pipelines.recommended import RecommendedSettings, check_interval, read_recommended
from attnviz.models.vocoder import HifiGan
from attnviz.text import clip_token_table

DEFAULT_SECONDS = 10.0
"""Default duration of generated audio, in seconds (the authors' default)."""

OutputType = Literal["audio", "latent"]


class AuffusionMixin(DiffusionPipeline):
    """Turn a Stable Diffusion pipeline of diffusers into an Auffusion pipeline.

    The denoising loop, schedulers, LoRA, callbacks and offloading are those of the diffusers pipeline
    it is mixed into. Two things are added: prompts may be encoded by several text encoders with
    adapters, and latents are decoded to a mel spectrogram and to audio.

    Parameters
    ----------
    vae, text_encoder, tokenizer, unet, scheduler
        As in ``StableDiffusionPipeline``. `text_encoder` and `tokenizer` are None in the adapter layout.
    vocoder : HifiGan or None
        Log-mel to waveform. None: Griffin-Lim.
    conditioner : TextConditioner or None
        Text encoders with their adapters. None in the plain layout.
    safety_checker, feature_extractor, image_encoder, requires_safety_checker
        Parts of the diffusers signature, without meaning for spectrograms.
    """

    model_cpu_offload_seq = "conditioner->text_encoder->image_encoder->unet->vae->vocoder"
    _optional_components = [  # noqa: RUF012 (the name and type are diffusers' own)
        "text_encoder",
        "tokenizer",
        "vocoder",
        "conditioner",
        "safety_checker",
        "feature_extractor",
        "image_encoder",
    ]

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        vocoder: HifiGan | None = None,
        conditioner: TextConditioner | None = None,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = False,
    ) -> None:
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            requires_safety_checker=requires_safety_checker,
        )
        self.register_modules(vocoder=vocoder, conditioner=conditioner)
        self._duration = DEFAULT_SECONDS
        self.preprocessor: str | None = None  # of the feature extractor: kept, not used, and saved again
        self.known_sounds: KnownSounds | None = None
        self.recommended = RecommendedSettings()
        self._guidance_interval = WHOLE

    @property
    def duration(self) -> float:
        """Duration of the audio of the current or last call, in seconds."""
        return self._duration

    @property
    def guidance_interval(self) -> tuple[float, float]:
        """Timesteps with guidance in the current or last call, as fractions of the schedule."""
        return self._guidance_interval

    @classmethod
    @public
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        torch_dtype: torch.dtype | None = None,
        local_files_only: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Load a published checkpoint in the adapter layout or in the plain layout.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path-like
            A folder, or the name of a repository on the Hugging Face hub (``"auffusion/auffusion"``).
        revision : str, optional
            Branch, tag or commit of the hub repository.
        torch_dtype : torch.dtype, optional
            Dtype of every part; default: float32.
        local_files_only : bool
            Use only the local cache of the hub.
        cache_dir : path-like, optional
            Cache folder of the hub, if not the default.

        Raises
        ------
        CheckpointError
            If a file is missing or malformed. The message names the file and what was expected.
        """
        checkpoints.check_dtype(torch_dtype)
        folder, commit = checkpoints.locate(
            pretrained_model_name_or_path,
            revision=revision,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
        )
        pipe = cls(**checkpoints.load_components(folder, torch_dtype=torch_dtype))
        pipe.preprocessor = read_preprocessor(folder)
        pipe.known_sounds = read_known_sounds(folder)
        pipe.recommended = read_recommended(folder)
        pipe.register_to_config(_name_or_path=os.fspath(pretrained_model_name_or_path), _revision=commit)
        return pipe

    @public
    def save_pretrained(self, save_directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the checkpoint in the layout it was loaded from; weights as safetensors.

        Raises
        ------
        CheckpointError
            If a LoRA is attached; merge or remove it first.
        OutputError
            If the folder exists and `overwrite` is False, or cannot be written. No partial output
            is left.
        """
        checkpoints.save_components(self, save_directory, overwrite=overwrite)

    @classmethod
    @public
    def from_pipe(cls, pipeline: DiffusionPipeline, **replaced: Any) -> Self:
        """Create this type of pipeline from another one's parts, which are shared: neither copied nor cast.

        Parameters
        ----------
        pipeline : diffusers.DiffusionPipeline
            Any Auffusion pipeline, or a ``StableDiffusionPipeline`` (then without a vocoder, unless one
            is passed).
        **replaced
            Parts to use instead, by name (``scheduler=...``, ``vocoder=...``).

        Raises
        ------
        CheckpointError
            If a part of that name does not exist, or the pipeline is of another type.
        """
        if not isinstance(pipeline, DiffusionPipeline):
            raise CheckpointError(f"A {type(pipeline).__name__} was given; a pipeline of diffusers is expected.")
        calls.check_parts(cls.__init__, pipeline.components, replaced)
        pipe = cls(**{**pipeline.components, **replaced})
        pipe.preprocessor = getattr(pipeline, "preprocessor", None)
        pipe.known_sounds = getattr(pipeline, "known_sounds", None)
        pipe.recommended = getattr(pipeline, "recommended", RecommendedSettings())
        config = pipeline.config
        pipe.register_to_config(_name_or_path=config.get("_name_or_path", ""), _revision=config.get("_revision"))
        return pipe

    @public
    def load_lora_weights(self, weights: Any, adapter_name: str | None = None, **settings: Any) -> None:
        """Load a LoRA completely or not at all; parameters as for ``StableDiffusionPipeline.load_lora_weights``.

        Raises
        ------
        CheckpointError
            If it cannot be read or does not fit the model; in the adapter layout, also if it changes a text
            encoder: it then belongs to another model.
        """
        try:
            self._load_lora(weights, adapter_name, settings)
        except (TypeError, ValueError, LookupError, OSError) as error:
            given = f"{weights!r}"[:80]
            raise CheckpointError(
                f"The LoRA {given} cannot be loaded: {error} Give a folder, a file, a name on the hub, or "
                "tensors by name."
            ) from error

    def _load_lora(self, weights: Any, adapter_name: str | None, settings: dict[str, Any]) -> None:
        if self.conditioner is not None:
            read = {
                name: value for name, value in settings.items() if name not in ("hotswap", "low_cpu_mem_usage")
            }
            state, *_ = self.lora_state_dict(dict(weights) if isinstance(weights, dict) else weights, **read)
            if others := [name for name in state if name.startswith("text_encoder")]:
                raise CheckpointError(
                    f"The LoRA changes a text encoder of Stable Diffusion ({len(others)} tensors, first "
                    f"{others[0]}), but a checkpoint in the adapter layout has other encoders. Pass its "
                    "unet.* tensors only."
                )
        before = set(getattr(self.unet, "peft_config", {}))
        try:
            super().load_lora_weights(weights, adapter_name=adapter_name, **settings)
        except BaseException:
            if half := sorted(set(getattr(self.unet, "peft_config", {})) - before):
                self.unet.delete_adapters(half)
            raise

    @public
    def load_textual_inversion(self, *arguments: Any, **settings: Any) -> None:
        """Add words to the text encoder; parameters as for ``StableDiffusionPipeline.load_textual_inversion``.

        Raises
        ------
        CheckpointError
            In the adapter layout, for whose encoders it has no embeddings.
        """
        if self.conditioner is not None:
            raise CheckpointError(
                "A textual inversion needs the text encoder of the plain layout; this checkpoint is in the "
                "adapter layout, which has other encoders."
            )
        super().load_textual_inversion(*arguments, **settings)

    @public
    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: str | torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encode prompts for the cross-attention.

        In the adapter layout, each encoder's hidden states are padded with zeros to its length and passed through
        its adapter; the results are concatenated along the token axis. The unconditional embedding is all zeros,
        unless a negative prompt is given. The plain layout works as ``StableDiffusionPipeline``.

        Returns
        -------
        prompt_embeds : torch.Tensor, shape (prompts x num_images_per_prompt, keys, width)
            Images of one prompt are adjacent.
        negative_prompt_embeds : torch.Tensor of the same shape, or None
            None without guidance, in the adapter layout.

        Raises
        ------
        PromptError
            If prompts are invalid or do not match; in the adapter layout, if `clip_skip` is given.

        Warns
        -----
        UnknownSoundWarning
            If a prompt names none of the sounds that a small model was trained on (``sounds.json``).
        """
        num_images_per_prompt = inputs.check_count("num_images_per_prompt", num_images_per_prompt)
        device = None if device is None else checked_device(device)
        prompt, negatives = self._matched(prompt, negative_prompt, prompt_embeds)
        warn_of_unknown_sounds(prompt or (), self.known_sounds)
        if negative_prompt_embeds is not None or not do_classifier_free_guidance:
            negatives = None
        if self.conditioner is None:
            inputs.check_clip_skip(clip_skip, self.text_encoder)
            seen = dict.fromkeys([*(prompt or ()), *(each for each in negatives or () if each.strip())])
            for each in seen:
                clip_token_table(self.tokenizer, each)  # lists words that are cut off in a warning
            return super().encode_prompt(
                prompt,
                device,
                num_images_per_prompt,
                do_classifier_free_guidance,
                negatives,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                lora_scale=lora_scale,
                clip_skip=clip_skip,
            )
        if clip_skip is not None:
            raise PromptError("clip_skip needs the plain layout; adapters read the last hidden state.")
        device = device or self._execution_device
        if prompt_embeds is None:
            prompt_embeds = self._encode(prompt, device)
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            if negatives is None:
                negative_prompt_embeds = torch.zeros_like(prompt_embeds)
            else:
                different = negatives[:1] if isinstance(negative_prompt, str) else negatives
                negative_prompt_embeds = self._encode(different, device, allow_empty=True).expand_as(prompt_embeds)
        prompt_embeds = prompt_embeds.repeat_interleave(num_images_per_prompt, dim=0)
        if not do_classifier_free_guidance or negative_prompt_embeds is None:
            return prompt_embeds, None
        return prompt_embeds, negative_prompt_embeds.repeat_interleave(num_images_per_prompt, dim=0)

    @torch.no_grad()
    @public
    def decode_audio(self, latents: torch.Tensor, duration: float) -> AuffusionOutput:
        """Decode latents to image, log-mel spectrogram and audio.

        Parameters
        ----------
        latents : torch.Tensor, shape (n, channels, rows, columns)
            Final latents of the denoising loop.
        duration : float
            Duration of the audio to keep from the start, in seconds.

        Raises
        ------
        AudioError
            If the VAE's image holds a NaN (float16 overflow is the usual reason).
        """
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        images = (decoded[:, 0].float() / 2 + 0.5).clamp(0, 1)
        if not bool(torch.isfinite(images).all()):
            raise AudioError(
                f"The VAE returned NaN in {self.vae.dtype}. In float16 this is an overflow: load with "
                "torch_dtype=torch.bfloat16 or torch.float32."
            )
        log_mels = image_to_mel(images)
        waveforms = self._vocode(log_mels)
        # Rounded, not cut: the length of a clip in seconds, times the rate, may fall a hair below its samples.
        samples = round(duration * MEL.sampling_rate)
        return AuffusionOutput(
            audios=[waveform[:samples] for waveform in waveforms],
            spectrograms=log_mels.cpu().numpy(),
            images=images.cpu().numpy(),
        )

    def _vocode(self, log_mels: torch.Tensor) -> Sequence[np.ndarray]:
        if self.vocoder is None:
            return [griffin_lim(log_mel) for log_mel in log_mels.cpu().numpy()]
        waveforms = self.vocoder(log_mels.to(self._execution_device, self.vocoder.dtype))
        return list(waveforms.float().cpu().numpy())

    def _sampling(
        self, steps: Any, scale: Any, interval: Any, purpose: str = "generation"
    ) -> tuple[int, float, tuple[float, float]]:
        """Settle steps and guidance of a call: as they are given, or else as the checkpoint recommends."""
        names = ("num_inference_steps", "guidance_scale", "guidance_interval")
        settled = self.recommended.settle(dict(zip(names, (steps, scale, interval), strict=True)), purpose)
        self._guidance_interval = check_interval("guidance_interval", settled["guidance_interval"])
        return (
            settled["num_inference_steps"],
            inputs.check_guidance(settled["guidance_scale"]),
            self._guidance_interval,
        )

    @staticmethod
    def _matched(prompt: Any, negative_prompt: Any, embeds: Any) -> tuple[list[str] | None, list[str] | None]:
        """Prompts as a list, and a negative one for each where there are any."""
        if prompt is None and embeds is not None:
            return None, inputs.check_negative_prompts(negative_prompt, len(embeds))
        count = inputs.check_prompts(prompt, negative_prompt)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        return prompts, inputs.check_negative_prompts(negative_prompt, count)

    def _encode(
        self, prompts: list[str] | None, device: torch.device, *, allow_empty: bool = False
    ) -> torch.Tensor:
        return self.conditioner(prompts, device=device, allow_empty=allow_empty).to(dtype=self.unet.dtype)

    def _finish(
        self, latents: torch.Tensor, output_type: OutputType, return_dict: bool, *, check_level: bool = True
    ) -> Any:
        """Latents of a finished loop, in the form that was asked for."""
        if output_type == "latent":
            output = AuffusionOutput(latents=latents)
        else:
            output = self.decode_audio(latents, self._duration)
            self.maybe_free_model_hooks()
            if check_level:
                warn_of_silence(output.audios or [])
                warn_of_clipping(output.audios or [])
        return output if return_dict else output.to_tuple()


def warn_of_silence(audios: Sequence[np.ndarray], what: str = "The audio") -> None:
    """Warn of each result that cannot be heard.

    Warns
    -----
    InaudibleWarning
        With its number, where there are several, and its level in dB of full scale.
    """
    for named, audio in _named(audios, what):
        warn_if_inaudible(loudest_level(audio), named)


def warn_of_clipping(audios: Sequence[np.ndarray], what: str = "The audio") -> None:
    """Warn of each result that is clipped.

    Warns
    -----
    ClippingWarning
        With its number, where there are several, and the time at full scale.
    """
    for named, audio in _named(audios, what):
        warn_if_clipped(
            audio, named, "Lower the guidance scale or the weight of a loud word, or try another seed."
        )


def _named(audios: Sequence[np.ndarray], what: str) -> list[tuple[str, np.ndarray]]:
    if len(audios) == 1:
        return [(what, audios[0])]
    return [(f"{what} ({number} of {len(audios)})", audio) for number, audio in enumerate(audios, start=1)]
