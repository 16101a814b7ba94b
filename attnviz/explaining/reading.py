"""Attention maps of a real clip, read while the model looks at it with a caption."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Literal

import diffusers
import torch

from attnviz import provenance
from attnviz.audio import MEL
from attnviz.capture import (
    DEFAULT_MAX_BYTES,
    AttentionRecorder,
    Conditioning,
    find_cross_attention,
    held,
    is_traced,
)
from attnviz.errors import CaptureError, PromptError
from attnviz.explaining.clip import read_clip
from attnviz.explaining.looking import look_at_windows
from attnviz.explaining.randomizing import randomized, randomized_blocks
from attnviz.explaining.schedule import TrainingSchedule
from attnviz.explaining.settings import MethodName, checked_whole, settled_method
from attnviz.explaining.windows import WIDTH, join_windows
from attnviz.keys import Tokens, check_pipeline, check_tokens, kept_positions, on_spectrogram, token_table
from attnviz.maps import AttentionMaps
from attnviz.pipelines import inputs
from attnviz.pipelines.sources import AudioSource

_logger = logging.getLogger(__name__)


@torch.no_grad()
def explain(
    pipe: diffusers.DiffusionPipeline,
    audio: AudioSource,
    caption: str,
    *,
    method: MethodName = "noising",
    timesteps: Sequence[int] = (50, 150, 250, 400),
    draws: int | None = None,
    seed: int | None = None,
    inversion_steps: int | None = None,
    look_timestep: int | None = None,
    overlap: float = 2.56,
    normalize: bool = True,
    randomize: int | str = 0,
    randomize_seed: int | None = None,
    keep: Collection[Literal["step", "head"]] = (),
    tokens: Tokens = "text",
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> AttentionMaps:
    """Read attention maps on a real clip: where the model looks for each word of a caption.

    The clip is encoded by the VAE and brought to some timesteps; the U-Net looks at it there with the caption (the
    conditional branch alone, no guidance), and its cross-attention is read. Nothing is generated, so when each
    word sounds is known exactly wherever the clip is annotated.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        An Auffusion pipeline, or a plain ``StableDiffusionPipeline`` of spectrograms. It stays as it is.
    audio : path, array or tensor
        A WAV, FLAC or OGG file of any sample rate, channel count and length, or samples at 16 kHz.
    caption : str
        What is heard in it.
    method : {"noising", "inversion", "predicted"}
        What is looked at. ``"noising"``: the clip under fresh noise, several draws averaged. ``"inversion"``: the
        latents that DDIM sampling with this caption would pass on its way to the clip. ``"predicted"``: the clean
        latents that the model predicts of the noised clip.
    timesteps : sequence of int
        Timesteps of the training schedule, from 0 (hardly any noise), each at most once.
    draws : int, optional
        Noising and predicted: noise draws a timestep, which the U-Net sees as one batch; 4 where left out.
    seed : int, optional
        Noising and predicted: fixes the noise; 0 where left out. A draw depends on seed, timestep and its own
        number alone.
    inversion_steps : int, optional
        Inversion: equal steps over the whole schedule, of which those up to the highest of `timesteps` are made;
        20 where left out. They must pass all of `timesteps`.
    look_timestep : int, optional
        Predicted: the timestep that the model is told while it looks at its prediction; 0, where the cleanest
        latents of its training are, where left out.
    overlap : float
        Seconds that the windows of a longer clip have in common, at least.
    normalize : bool
        Scale the clip to a peak of 0.95, as Auffusion does before editing. False leaves its level alone, for a
        model that was trained so.
    randomize : int or str
        Blocks of the U-Net whose weights are shuffled for the while, counted from the output, or the name of the
        last of them (``"mid_block"``, ``"conv_in"``: all); see `attnviz.explaining.cascade`. Maps to compare with.
    randomize_seed : int, optional
        Fixes how they are shuffled; 0 where left out.
    keep : collection of {"step", "head"}
        Axes kept; the others are averaged as they come. A step is one of `timesteps`, in the order given.
    tokens : {"text", "all"}
        ``"text"`` leaves padding out; start and end tokens are kept.
    max_bytes : int
        What the maps may take, in bytes; settled at the first look.

    Returns
    -------
    AttentionMaps
        One prompt, the caption, and one image, the mean over draws; with the clip's spectrogram.

    Raises
    ------
    AudioError
        If the clip cannot be read, holds NaN or no samples, or is too short for a spectrogram (59 ms); or the
        overlap leaves no room for a window to move on.
    PromptError
        If the caption is no text, or empty.
    CaptureError
        If `pipe` is no such pipeline, is being traced, or has a layer that cannot be observed faithfully; if a
        setting cannot be used, or is another method's; if attention is NaN, or the maps exceed `max_bytes`
        (`MemoryBudgetError`).

    Notes
    -----
    Neither the global random state nor the pipeline's scheduler is touched. Weights that were randomised are put
    back to the last bit, also after an error.

    A clip shorter than the model's 10.24 s is followed by silence, whose columns the maps mark as padding. A
    longer one is looked at in windows of 10.24 s, each a clip of its own to the model, under the same noise.
    Windows begin at columns of the coarsest layer, so that columns fall on one another in all layers and nothing
    is interpolated; where windows overlap, their maps are cross-faded linearly. The last window ends with less
    than one such column of silence. The maps, their grid and their spectrogram have the whole clip's length.

    *Inversion* is diffusers' ``DDIMInverseScheduler`` on the model's own schedule and prediction type, with
    guidance 1 and no clipping; what is looked at are latents at their own timestep, as sampling would see them.

    *Predicted*: the clip is noised to a timestep, the clean latents are computed of what the U-Net predicts
    there, and the U-Net looks at those, with no noise added again. ``maps.timesteps`` are those the clip was
    noised to.

    Source: inversion, Song et al., Denoising Diffusion Implicit Models (arXiv 2010.02502); predicted, the
    observation of TimeSteer that maps localise best while the model looks at the predicted clean latents;
    randomize, Adebayo et al., Sanity Checks for Saliency Maps (arXiv 1810.03292).

    Differences from the original: TimeSteer reads while it generates; here a noised clip takes the place of the
    latents under way, and which timestep the model is told is a choice (`look_timestep`). Of `randomize`:
    weights are shuffled, not drawn anew; `attnviz.explaining.randomizing` says why. From the audio-to-audio
    pipeline: the clip's latents are the mean of the VAE's posterior and not a sample of it, so that the noise
    there is, is the noise that was asked for.
    """
    check_tokens(tokens)
    check_pipeline(pipe, "explained")
    _check_caption(caption)
    schedule = TrainingSchedule.of(pipe.scheduler)
    chosen = settled_method(
        method,
        timesteps,
        draws=draws,
        seed=seed,
        inversion_steps=inversion_steps,
        look_timestep=look_timestep,
        schedule=len(schedule),
    )
    _check_unet(pipe)
    blocks = randomized_blocks(pipe.unet, randomize)
    weight_seed = _checked_weight_seed(randomize_seed, blocks)
    clip = read_clip(audio, normalize=normalize, overlap=overlap, column=_coarsest_column(pipe))
    _logger.info(
        "explaining a clip in %d windows of %d looks each (%s)", len(clip.starts), len(chosen.timesteps), method
    )
    recorder = AttentionRecorder(pipe.unet, keep=keep, max_bytes=max_bytes * WIDTH // clip.grid.width)
    try:
        keys, _ = pipe.encode_prompt(caption, pipe._execution_device, chosen.rows, False)
        table = token_table(pipe, caption)
        conditioning = Conditioning(keys, None, 1, kept_positions([table], tokens), draws=chosen.rows)
        acting = provenance.acting(pipe)
        with randomized(pipe.unet, blocks, weight_seed), held(acting):
            windows = look_at_windows(pipe, clip, chosen, schedule, recorder, conditioning)
            layers = join_windows(windows, clip.starts)
            acted = acting.record
    finally:
        pipe.maybe_free_model_hooks()
    return AttentionMaps.from_layers(
        on_spectrogram(layers, int(pipe.vae_scale_factor)),
        tokens=[table],
        positions=conditioning.positions,
        timesteps=chosen.timesteps,
        grid=clip.grid,
        spectrogram=clip.log_mel[None, None],
        provenance=provenance.completed(
            {
                **provenance.model(pipe),
                **chosen.settings,
                "normalize": normalize,
                "windows": [start * MEL.hop_length / MEL.sample_rate for start in clip.starts],
                "overlap": float(overlap),
                "randomized": {"blocks": blocks, "seed": weight_seed} if blocks else None,
                "image": provenance.digest(clip.pixels),
                "keep": sorted(recorder.keep),
                "tokens": tokens,
                "branch": recorder.branch,
                "steps": len(chosen.timesteps),
            },
            acted,
        ),
    )


def _coarsest_column(pipe: Any) -> int:
    """Spectrogram columns of one column of the U-Net's coarsest level, which halves the latents' at each level."""
    return int(pipe.vae_scale_factor) * 2 ** (len(pipe.unet.config.block_out_channels) - 1)


def _checked_weight_seed(seed: int | None, blocks: list[str]) -> int:
    if seed is not None and not blocks:
        raise CaptureError(
            f"randomize_seed={seed!r} is given, and no block is randomised; say which with randomize=."
        )
    return checked_whole("randomize_seed", 0 if seed is None else seed, least=0)


def _check_caption(caption: Any) -> None:
    if not isinstance(caption, str):
        raise PromptError(f"caption={caption!r} is not a string. One clip is explained at a time.")
    inputs.check_prompts(caption)


def _check_unet(pipe: Any) -> None:
    """Refuse a U-Net that is traced already, or wants more than the latents."""
    if is_traced(pipe.unet):
        raise CaptureError(
            "The pipeline's U-Net is being traced already, and explain makes maps of its own. Call explain "
            "outside the `with trace(...)` block."
        )
    find_cross_attention(pipe.unet)  # or an error, before the U-Net works for what cannot be observed
    wanted, there_are = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if wanted != there_are:
        raise CaptureError(
            f"The U-Net takes {wanted} channels, and the VAE gives {there_are}. Is it a model for inpainting, "
            "which looks at a mask too? A text-to-audio model is needed."
        )
