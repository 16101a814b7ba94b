"""Compute attention maps of a real clip with a caption."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Literal

import diffusers
import torch

from attnviz import provenance
from attnviz.arguments import public
from attnviz.attribution.looking import look_at_windows
from attnviz.attribution.randomizing import randomized, randomized_blocks
from attnviz.attribution.settings import LatentsName, checked_whole, settled_latents
from attnviz.audio import MEL, load_audio
from attnviz.audio.files import AudioSource
from attnviz.capture import (
    DEFAULT_MAX_BYTES,
    AttentionRecorder,
    Conditioning,
    find_cross_attention,
    held,
    is_traced,
    measure_of,
)
from attnviz.diffusion.clip import read_clip, warn_of_level
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.diffusion.windows import WIDTH, join_windows
from attnviz.errors import CaptureError, PromptError
from attnviz.keys import Tokens, check_pipeline, check_tokens, kept_positions, on_spectrogram, token_table
from attnviz.maps import AttentionMaps
from attnviz.pipelines import inputs

_logger = logging.getLogger(__name__)


@torch.no_grad()
@public
def explain(
    pipe: diffusers.DiffusionPipeline,
    audio: AudioSource,
    caption: str,
    *,
    sampling_rate: int | None = None,
    method: str = "attention",
    latents: LatentsName = "noising",
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
    """Compute attention maps of a real clip for the words of a caption.

    The VAE encodes the clip, its latents at the given timesteps are computed as `latents` says, and the U-Net
    processes them with the caption (conditional branch only, without guidance) while its cross-attention is
    recorded. No audio is generated, so the ground truth of each word is exact if the clip is annotated.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        An Auffusion pipeline, or a ``StableDiffusionPipeline`` for spectrograms. It is not changed.
    audio : path, array or tensor
        A WAV, FLAC or OGG file with any sampling rate, number of channels and length, or samples at 16 kHz.
    caption : str
        Description of the audio.
    sampling_rate : int, optional
        Sampling rate of an array in Hz. By default, 16 000. Not allowed for files.
    method : {"attention", "value", "rollout"}
        What the maps hold; see `attnviz.attribution`.
    latents : {"noising", "inversion", "predicted"}
        How the latents are computed:

        - ``"noising"``: add noise to the clip and average over several draws.
        - ``"inversion"``: use the latents of the DDIM trajectory that leads to the clip with this caption.
        - ``"predicted"``: use the clean latents that the model predicts from the noisy clip.
    timesteps : sequence of int
        Timesteps of the training schedule, without duplicates. Timestep 0 is the least noisy.
    draws : int, optional
        For noising and predicted: number of noise draws per timestep, which form one batch. By default, 4.
    seed : int, optional
        For noising and predicted: seed of the noise. By default, 0. A draw depends only on the seed, the timestep
        and its index.
    inversion_steps : int, optional
        For inversion: number of equal steps for the whole schedule. Steps beyond the highest of `timesteps` are
        not computed. The steps must include all `timesteps`. By default, 20.
    look_timestep : int, optional
        For predicted: timestep given to the U-Net together with the predicted latents. By default, 0, which
        corresponds to the cleanest latents in training.
    overlap : float
        Minimum overlap in seconds of the windows of a long clip.
    normalize : bool
        Scale the clip to a peak of 0.95 for the model, as Auffusion does before editing. The spectrogram of the
        maps is that of the scaled clip. Use False for a model that was trained without scaling.
    randomize : int or str
        Number of U-Net blocks, counted from the output, with weights that are shuffled temporarily, or the name of
        the last such block (``"conv_in"`` randomises all). The result is a control; see
        `attnviz.attribution.cascade`.
    randomize_seed : int, optional
        Seed of the shuffle. By default, 0.
    keep : collection of {"step", "head"}
        Axes to store. Other axes are averaged. The steps are `timesteps`, in the given order.
    tokens : {"text", "all"}
        ``"text"`` excludes padding; start and end tokens are included.
    max_bytes : int
        Memory limit of the maps in bytes, checked at the first U-Net call.

    Returns
    -------
    AttentionMaps
        Maps of one prompt (the caption) and one image (the mean over draws), with the spectrogram of the clip.

    Raises
    ------
    AudioError
        If the clip cannot be read, is empty, contains NaN or is too short for a spectrogram (59 ms), or if
        `overlap` is too large.
    PromptError
        If the caption is not a string or is empty.
    CaptureError
        If `pipe` is not supported, is being traced, or has a layer that cannot be observed faithfully; if a
        setting is invalid or does not belong to `latents`; if attention is NaN; or if the maps exceed `max_bytes`
        (`MemoryBudgetError`).

    Warns
    -----
    InaudibleWarning, ClippingWarning
        If the clip, at its own level, is below -50 dBFS, or more than 10 ms of it are at full scale.

    Notes
    -----
    The global random state and the scheduler of the pipeline are not changed. Randomised weights are restored
    bit-identically, also after an error.

    A clip shorter than 10.24 s is padded with silence, and its padding columns are marked in the maps. A longer
    clip is processed in windows of 10.24 s with the same noise. Each window is an independent input of the model.
    Windows start at columns of the coarsest layer, so that the columns of all layers coincide without
    interpolation. Overlapping maps are cross-faded linearly. The last window ends with less than one such column
    of silence. The maps, their grid and their spectrogram cover the whole clip.

    *Inversion* uses ``DDIMInverseScheduler`` of diffusers with the schedule and prediction type of the model,
    guidance scale 1 and no clipping. Attention is recorded for latents with their own timestep, as in sampling.

    *Predicted* adds noise to the clip, computes the clean latents from the prediction of the U-Net, and records
    attention for the clean latents without adding noise again. ``maps.timesteps`` are the timesteps of the noise.

    References: inversion, Song et al., Denoising Diffusion Implicit Models (arXiv 2010.02502); predicted, the
    observation of TimeSteer that maps localise best for predicted clean latents; randomize, Adebayo et al., Sanity
    Checks for Saliency Maps (arXiv 1810.03292).

    Differences from the originals: TimeSteer records during generation; here a noisy clip replaces the
    intermediate latents, and `look_timestep` is a parameter. `randomize` shuffles weights instead of
    reinitialising them; `attnviz.attribution.randomizing` explains why. Unlike the audio-to-audio pipeline, the
    latents of the clip are the mean of the VAE posterior instead of a sample, so that they contain no other noise
    than that of `draws`.
    """
    check_tokens(tokens)
    check_pipeline(pipe, "explained")
    _check_caption(caption)
    schedule = TrainingSchedule.of(pipe.scheduler)
    chosen = settled_latents(
        latents,
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
    waveform = load_audio(audio, source_rate=sampling_rate)
    clip = read_clip(waveform, normalize=normalize, overlap=overlap, column=_coarsest_column(pipe))
    warn_of_level(waveform)
    _logger.info(
        "explaining a clip in %d windows of %d looks each (%s)", len(clip.starts), len(chosen.timesteps), latents
    )
    recorder = AttentionRecorder(
        pipe.unet, keep=keep, max_bytes=max_bytes * WIDTH // clip.grid.width, measure=measure_of(method)
    )
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
        content={"method": method, "quantity": recorder.measure.quantity},
    )


def _coarsest_column(pipe: Any) -> int:
    """Return the spectrogram columns per column of the coarsest U-Net level; each level halves the resolution."""
    return int(pipe.vae_scale_factor) * 2 ** (len(pipe.unet.config.block_out_channels) - 1)


def _checked_weight_seed(seed: int | None, blocks: list[str]) -> int:
    if seed is not None and not blocks:
        raise CaptureError(
            f"randomize_seed={seed!r} is given, but no block is randomised. Set randomize= as well."
        )
    return checked_whole("randomize_seed", 0 if seed is None else seed, least=0)


def _check_caption(caption: Any) -> None:
    if not isinstance(caption, str):
        raise PromptError(f"caption={caption!r} is not a string. Give one caption for one clip.")
    inputs.check_prompts(caption)


def _check_unet(pipe: Any) -> None:
    """Reject a U-Net that is being traced, or that needs inputs other than latents."""
    if is_traced(pipe.unet):
        raise CaptureError(
            "The U-Net of the pipeline is being traced already. Call explain outside the `with trace(...)` block."
        )
    find_cross_attention(pipe.unet)  # raises for layers that cannot be observed, before the U-Net runs
    wanted, there_are = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if wanted != there_are:
        raise CaptureError(
            f"The U-Net needs {wanted} channels, but the VAE has {there_are}. Is it an inpainting model, which "
            "also needs a mask? Use a text-to-audio model."
        )
