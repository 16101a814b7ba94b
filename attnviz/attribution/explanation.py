"""Compute attention maps of a real clip with a caption."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Sequence
from typing import Any, Literal

import diffusers
import torch
import transformers

from attnviz.arguments import public
from attnviz.attribution.clip_views import check_caption, check_unet, coarsest_column
from attnviz.attribution.code_explanation import explain_codes
from attnviz.attribution.denoising import Denoising
from attnviz.attribution.family_explanation import explain_with_family
from attnviz.attribution.looking import look_at_windows
from attnviz.attribution.method import Asked, Attribution
from attnviz.attribution.methods import method_of
from attnviz.attribution.randomizing import randomized, randomized_blocks
from attnviz.attribution.settings import TIMESTEPS, LatentsName, Request
from attnviz.attribution.texts import Texts
from attnviz.audio import MEL, load_audio
from attnviz.audio.files import AudioSource
from attnviz.capture import (
    DEFAULT_MAX_BYTES,
    AttentionRecorder,
    Conditioning,
    held,
)
from attnviz.diffusion.clip import encode, read_clip, warn_of_level
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.diffusion.windows import WIDTH, default_overlap, join_windows
from attnviz.maps import AttentionMaps
from attnviz.models.families import Family, family_of, model_inside
from attnviz.models.pipelines.published import ModelWithProcessor
from attnviz.tracing.generation import check_no_processor
from attnviz.tracing.keys import Tokens, check_pipeline, check_tokens, kept_positions, on_spectrogram, token_table
from attnviz.tracing.trace import provenance

_logger = logging.getLogger(__name__)


@torch.no_grad()
@public
def explain(
    pipe: diffusers.DiffusionPipeline | transformers.PreTrainedModel | ModelWithProcessor,
    audio: AudioSource,
    caption: str,
    *,
    processor: object = None,
    sampling_rate: int | None = None,
    method: str | Attribution = "attention",
    latents: LatentsName = "noising",
    timesteps: Sequence[int] = TIMESTEPS,
    draws: int | None = None,
    seed: int | None = None,
    inversion_steps: int | None = None,
    look_timestep: int | None = None,
    overlap: float | None = None,
    normalize: bool = True,
    randomize: int | str = 0,
    randomize_seed: int | None = None,
    keep: Collection[Literal["step", "head"]] = (),
    tokens: Tokens = "text",
    max_bytes: int = DEFAULT_MAX_BYTES,
    family: Family | None = None,
    **settings: Any,
) -> AttentionMaps:
    """Compute attention maps of a real clip for the words of a caption.

    The model's own encoder encodes the clip, its latents at the given timesteps are computed as `latents` says,
    and the denoiser processes them with the caption (conditional branch only, without guidance) while its
    attention to the text is recorded. MusicGen is given the codes of the clip instead. No audio is generated, so
    the ground truth of each word is exact if the clip is annotated.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline, transformers.PreTrainedModel or ModelWithProcessor
        An Auffusion pipeline, a ``StableDiffusionPipeline`` for spectrograms, or a model of one of
        `attnviz.models.families.FAMILIES`; of Tango and TangoFlux, the published object that holds the
        auto-encoder. It is not changed.
    audio : path, array or tensor
        A WAV, FLAC or OGG file with any sampling rate, number of channels and length, or samples of shape
        ``(samples,)`` or ``(samples, channels)`` at the rate of the model.
    caption : str
        Description of the audio.
    processor : object, optional
        Of MusicGen: processor or tokenizer of the model. Default: that of the pair that `attnviz.load` returns.
    sampling_rate : int, optional
        Sampling rate of an array in Hz. By default, that of the model: 16 000 of Auffusion. Not allowed for files.
    method : str or Attribution
        Method of attribution, by name, or made with its settings:

        - ``"attention"``: the probability with which each position attends to a word, in each layer.
        - ``"value"``: the norm of what the word adds there; `attnviz.attribution.Value`.
        - ``"rollout"``: attention, mixed over positions as by the self-attention of its block; `Rollout`.
        - ``"gradient"``: the positive part of attention x gradient; `Gradient`.
        - ``"integrated_gradients"``, ``"gradient_shap"``: gradients over the text embeddings, of the energy of the
          prediction in each cell; `IntegratedGradients`, `GradientShap`.
        - ``"leave_one_out"``: the change of the prediction without the word; `LeaveOneOut`.
        - ``"shapley"``: the guidance energy of each cell, shared out over the words; `Shapley`.
    latents : {"noising", "inversion", "predicted"}
        How the latents are computed. MusicGen has no noise, and takes none of these settings:

        - ``"noising"``: add noise to the clip and average over several draws.
        - ``"inversion"``: use the latents of the DDIM trajectory that leads to the clip with this caption.
        - ``"predicted"``: use the clean latents that the model predicts from the noisy clip.
    timesteps : sequence of int
        Timesteps of the training schedule, without duplicates. Timestep 0 is the least noisy. Models of flow
        matching, and Stable Audio, have thousandths of the way from the clip to noise.
    draws : int, optional
        For noising and predicted: number of noise draws per timestep, which form one batch. By default, 4.
    seed : int, optional
        For noising and predicted: seed of the noise. By default, 0. A draw depends only on the seed, the timestep
        and its index.
    inversion_steps : int, optional
        For inversion: number of equal steps for the whole schedule. Steps beyond the highest of `timesteps` are
        not computed. The steps must include all `timesteps`. By default, 20.
    look_timestep : int, optional
        For predicted: timestep given to the denoiser together with the predicted latents. By default, 0, which
        corresponds to the cleanest latents in training.
    overlap : float, optional
        Minimum overlap in seconds of the windows of a long clip. By default 2.56 s, or a quarter of the window if
        that is less.
    normalize : bool
        Scale the clip for the model as it was scaled in training: to a peak of 0.95 for Auffusion, 0.5 for
        AudioLDM2 and Tango. The spectrogram of the maps is that of the scaled clip. Other models get the clip's
        own level. Use False for a model that was trained without scaling.
    randomize : int or str
        Number of blocks, counted from the output, with weights that are shuffled temporarily, or the name of
        the last such block (``"conv_in"`` randomises all). The result is a control; see
        `attnviz.attribution.cascade`.
    randomize_seed : int, optional
        Seed of the shuffle. By default, 0.
    keep : collection of {"step", "head"}
        Axes to store. Other axes are averaged. The steps are `timesteps`, in the given order.
    tokens : {"text", "all"}
        ``"text"`` excludes padding; start and end tokens are included.
    max_bytes : int
        Memory limit of the maps in bytes, checked at the first denoiser call.
    family : Family, optional
        Record of a model that none of `FAMILIES` describes; see `attnviz.models.families.Family`. It states how
        audio is encoded.

    Returns
    -------
    AttentionMaps
        Maps of one prompt (the caption) and one image (the mean over draws), with the spectrogram of the clip, if
        the model has one.

    Raises
    ------
    AudioError
        If the clip cannot be read, is empty, contains NaN or is too short (59 ms for Auffusion), or if `overlap`
        is too large.
    PromptError
        If the caption is not a string or is empty.
    CaptureError
        If `pipe` is not supported or has no audio encoder, is being traced, or has a layer that cannot be observed
        faithfully; if a setting is invalid or does not belong to `latents`; if attention is NaN; or if the maps
        exceed `max_bytes` (`MemoryBudgetError`).

    Warns
    -----
    InaudibleWarning, ClippingWarning
        If the clip, at its own level, is below -50 dBFS, or more than 10 ms of it are at full scale.

    Notes
    -----
    The global random state and the scheduler of the pipeline are not changed. Randomised weights are restored
    bit-identically, also after an error.

    A clip shorter than 10.24 s is padded with silence, and its padding columns are marked in the maps. A longer
    clip is processed in windows of 10.24 s with the same noise. Other families have a window of their longest
    call, and pad only what their pipelines pad: those that make a clip of any length get the whole clip. Each
    window is an independent input of the model. Windows start at columns of the coarsest layer, so that the
    columns of all layers coincide without interpolation. Overlapping maps are cross-faded linearly. The last
    window ends with less than one such column of silence. The maps, their grid and their spectrogram cover the
    whole clip.

    *Families*: the pipeline's own call is run with the caption, its denoiser replaced by one that computes
    nothing, so that text, masks, positions and durations are what the pipeline itself would pass.

    *MusicGen*: its codec encodes the clip, and one forward pass has its codes as targets, delayed as in
    generation. The maps are those of a generation that had made these codes.

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
    check_caption(caption)
    chosen = method_of(method, pipe, settings)
    if isinstance(pipe, ModelWithProcessor):
        pipe, processor = pipe.model, pipe.processor if processor is None else processor
    model = model_inside(pipe)
    request = Request(
        chosen,
        latents,
        timesteps,
        draws,
        seed,
        inversion_steps,
        look_timestep,
        overlap,
        normalize,
        randomize,
        randomize_seed,
        keep,
        tokens,
        max_bytes,
    )
    found = family_of(model) if family is None else family
    if found is None or found.codebooks is None:
        check_no_processor(model, processor)
    if found is None:
        return _explain_spectrogram(pipe, audio, caption, request, sampling_rate)
    if found.codebooks is not None:
        return explain_codes(model, found, audio, caption, request, processor, sampling_rate)
    return explain_with_family(pipe, found, audio, caption, request, sampling_rate)


def _explain_spectrogram(
    pipe: Any, audio: AudioSource, caption: str, request: Request, sampling_rate: int | None
) -> AttentionMaps:
    """Explain a clip with an Auffusion pipeline, or another of Stable Diffusion's anatomy."""
    check_pipeline(pipe, "explained")
    request.method.check(frozenset([request.keep] if isinstance(request.keep, str) else request.keep))
    schedule = TrainingSchedule.of(pipe.scheduler)
    chosen = request.latents_for(len(schedule))
    check_unet(pipe)
    blocks = randomized_blocks(pipe.unet, request.randomize)
    weight_seed = request.weight_seed(blocks)
    waveform = load_audio(audio, source_rate=sampling_rate)
    column = coarsest_column(pipe)
    overlap = default_overlap(column) if request.overlap is None else request.overlap
    clip = read_clip(waveform, normalize=request.normalize, overlap=overlap, column=column)
    warn_of_level(waveform)
    _logger.info(
        "explaining a clip in %d windows of %d looks each (%s)",
        len(clip.starts),
        len(chosen.timesteps),
        chosen.settings["latents"],
    )
    recorder = AttentionRecorder(
        pipe.unet,
        keep=request.keep,
        max_bytes=request.max_bytes * WIDTH // clip.grid.width,
        measure=request.method.measure,
    )
    record: dict[str, Any] = {}
    try:
        keys, _ = pipe.encode_prompt(caption, pipe._execution_device, chosen.rows, False)
        table = token_table(pipe, caption)
        conditioning = Conditioning(keys, None, 1, kept_positions([table], request.tokens), draws=chosen.rows)
        acting = provenance.acting(pipe)
        with randomized(pipe.unet, blocks, weight_seed), held(acting):
            denoising = Denoising.of_unet(pipe.unet, conditioning, table)
            factor = int(pipe.vae_scale_factor)
            texts = functools.partial(Texts.of, pipe, table, keys[:1], aside=acting.paused)
            asked = Asked(pipe, denoising, recorder, clip.grid, factor, clip.starts, texts, record)
            windows = look_at_windows(
                denoising,
                [encode(pipe, pixels) for pixels in clip.windows],
                chosen,
                schedule,
                functools.partial(request.method.look, asked),
                # Respect `pipe.set_progress_bar_config(disable=True)`, as the loop of the pipeline does.
                getattr(pipe, "_progress_bar_config", {}),
            )
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
                "normalize": request.normalize,
                "windows": [start * MEL.hop_length / MEL.sampling_rate for start in clip.starts],
                "overlap": float(overlap),
                "randomized": {"blocks": blocks, "seed": weight_seed} if blocks else None,
                "image": provenance.digest(clip.pixels),
                "keep": sorted(recorder.keep),
                "tokens": request.tokens,
                "branch": recorder.branch,
                "steps": len(chosen.timesteps),
                "attribution": {**request.method.settings, **record},
            },
            acted,
        ),
        content=request.method.content,
    )
