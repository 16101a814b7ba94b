"""Attention maps of a real clip, read while the model looks at it with a caption."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, cast

import diffusers
import torch

from attnviz import provenance
from attnviz.capture import DEFAULT_MAX_BYTES, AttentionRecorder, Conditioning, is_recorded
from attnviz.errors import CaptureError, PromptError
from attnviz.explaining.clip import encode, read_clip
from attnviz.explaining.noising import Noising, training_schedule
from attnviz.keys import Tokens, check_pipeline, check_tokens, kept_positions, token_table
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.pipelines import inputs
from attnviz.pipelines.sources import AudioSource


@torch.no_grad()
def explain(
    pipe: diffusers.DiffusionPipeline,
    audio: AudioSource,
    caption: str,
    *,
    timesteps: Sequence[int] = (50, 150, 250, 400),
    draws: int = 4,
    seed: int = 0,
    normalize: bool = True,
    keep: Collection[Literal["step", "head"]] = (),
    tokens: Tokens = "text",
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> AttentionMaps:
    """Read attention maps on a real clip: where the model looks for each word of a caption.

    The clip is encoded by the VAE and noised to some timesteps, with several noise draws each; the U-Net looks
    at each with the caption (the conditional branch alone, no guidance), and its cross-attention is averaged
    over the draws. Nothing is generated, so when each word sounds is known exactly wherever the clip is
    annotated.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        An Auffusion pipeline, or a plain ``StableDiffusionPipeline`` of spectrograms. It stays as it is.
    audio : path, array or tensor
        A WAV, FLAC or OGG file of any sample rate and channel count, or samples at 16 kHz; at most 10.24 s. A
        shorter clip is followed by silence, whose columns the maps mark as padding.
    caption : str
        What is heard in it.
    timesteps : sequence of int
        Timesteps of the training schedule, from 0 (hardly any noise), each at most once.
    draws : int
        Noise draws a timestep, at least 1; the U-Net sees them as one batch.
    seed : int
        Fixes the noise, at least 0. A draw depends on seed, timestep and its own number alone.
    normalize : bool
        Scale the clip to a peak of 0.95, as Auffusion does before editing. False leaves its level alone, for a
        model that was trained so.
    keep : collection of {"step", "head"}
        Axes kept; the others are averaged as they come. A step is a timestep, in the order given.
    tokens : {"text", "all"}
        ``"text"`` leaves padding out; start and end tokens are kept.
    max_bytes : int
        What the maps may take, in bytes; settled at the first look, before more is computed.

    Returns
    -------
    AttentionMaps
        One prompt, the caption, and one image, the mean over draws; with the clip's spectrogram.

    Raises
    ------
    AudioError
        If the clip cannot be read, holds NaN or no samples, is too short for a spectrogram or longer than
        10.24 s.
    PromptError
        If the caption is no text, or empty.
    CaptureError
        If `pipe` is no such pipeline, is being traced, or has a layer that cannot be observed faithfully; if a
        setting cannot be used; if attention is NaN, or the maps exceed `max_bytes` (`MemoryBudgetError`).

    Notes
    -----
    Neither the global random state nor the pipeline's scheduler is touched. Longer clips are refused, not
    cut: looking at them window by window is yet to come.

    Differences from the audio-to-audio pipeline: the clip's latents are the mean of the VAE's posterior and not
    a sample of it, so that the noise there is, is the noise that was asked for.
    """
    check_tokens(tokens)
    check_pipeline(pipe, "explained")
    _check_caption(caption)
    schedule = training_schedule(pipe.scheduler)
    method = Noising.checked(timesteps, draws, seed, schedule)
    recorder = AttentionRecorder(pipe.unet, keep=keep, max_bytes=max_bytes)
    _check_unet(pipe)
    clip = read_clip(audio, normalize=normalize)
    try:
        latents = encode(pipe, clip)
        keys, _ = pipe.encode_prompt(caption, pipe._execution_device, method.draws, False)
        table = token_table(pipe, caption)
        conditioning = Conditioning(keys, None, 1, kept_positions([table], tokens), draws=method.draws)

        def look(samples: torch.Tensor, timestep: int) -> torch.Tensor:
            samples = samples.to(pipe.unet.dtype)
            return pipe.unet(samples, timestep, encoder_hidden_states=keys, return_dict=False)[0]

        with recorder:
            recording = recorder.begin(conditioning, lambda: method.looks)
            method.run(look, latents, schedule)
    finally:
        pipe.maybe_free_model_hooks()
    return AttentionMaps.from_layers(
        # The two rooms' layers have the same fields; maps copies each as it looks it up.
        cast("Mapping[str, LayerAttention]", recorder.captured(recording)),
        tokens=[table],
        positions=conditioning.positions,
        timesteps=recording.timesteps,
        grid=clip.grid,
        spectrogram=clip.log_mel[None, None],
        provenance={
            **provenance.model(pipe),
            **method.settings,
            "normalize": normalize,
            "image": provenance.digest(clip.pixels),
            "keep": sorted(recorder.keep),
            "tokens": tokens,
            "branch": recorder.branch,
            "steps": recording.expected_calls,
        },
    )


def _check_caption(caption: Any) -> None:
    if not isinstance(caption, str):
        raise PromptError(f"caption={caption!r} is not a string. One clip is explained at a time.")
    inputs.check_prompts(caption)


def _check_unet(pipe: Any) -> None:
    """Refuse a U-Net that is traced already, or wants more than the latents."""
    if is_recorded(pipe.unet):
        raise CaptureError(
            "The pipeline's U-Net is being traced already, and explain makes maps of its own. Call explain "
            "outside the `with trace(...)` block."
        )
    wanted, there_are = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if wanted != there_are:
        raise CaptureError(
            f"The U-Net takes {wanted} channels, and the VAE gives {there_are}. Is it a model for inpainting, "
            "which looks at a mask too? A text-to-audio model is needed."
        )
