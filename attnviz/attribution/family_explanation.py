"""Compute attention maps of a real clip with a pipeline of a family other than Stable Diffusion's."""

from __future__ import annotations

import functools
from typing import Any

from attnviz.attribution.denoising import Rehearsed, rehearse
from attnviz.attribution.family_texts import CaptionTexts
from attnviz.attribution.looking import look_at_windows
from attnviz.attribution.method import Asked
from attnviz.attribution.randomizing import randomized, randomized_blocks
from attnviz.attribution.settings import Request
from attnviz.audio import SpectrogramGrid
from attnviz.audio.files import AudioSource
from attnviz.capture import AttentionRecorder, held, is_traced
from attnviz.capture.layers import find_sites
from attnviz.diffusion.continuous import schedule_of
from attnviz.diffusion.model_audio import ModelAudio, checked_encoding, encode_window, read_model_audio
from attnviz.diffusion.windows import default_overlap, join_windows, window_starts
from attnviz.errors import CaptureError
from attnviz.maps import AttentionMaps
from attnviz.maps.layer import SIGNED_PROBABILITY
from attnviz.models.families import Family, model_inside
from attnviz.tracing.keys import check_family, on_spectrogram
from attnviz.tracing.trace import provenance


def explain_with_family(
    owner: Any, family: Family, audio: AudioSource, caption: str, request: Request, sampling_rate: int | None
) -> AttentionMaps:
    """Compute attention maps of a real clip with a pipeline of a family; see `attnviz.explain`.

    Parameters
    ----------
    owner : object
        The pipeline, or the published object around it.
    family : Family
    audio, caption, sampling_rate
        As for `attnviz.explain`.
    request : Request
        The other settings.
    """
    pipe = model_inside(owner)
    request.method.check_family(family)
    axes = frozenset({request.keep} if isinstance(request.keep, str) else request.keep)
    request.method.check(axes)
    check_family(pipe, family)
    checked_encoding(owner, family)
    denoiser, scheduler = getattr(pipe, family.denoiser), _scheduler(owner, pipe, family)
    if is_traced(denoiser):
        raise CaptureError(
            f"The {family.denoiser} is being traced already. Call explain outside the `with trace(...)` block."
        )
    find_sites(denoiser, family)  # raises for layers that cannot be observed, before anything runs
    schedule = schedule_of(scheduler)
    chosen = request.latents_for(len(schedule))
    blocks = randomized_blocks(denoiser, request.randomize, family)
    weight_seed = request.weight_seed(blocks)
    values = {timestep: schedule.given(timestep) for timestep in chosen.needed(schedule)}
    asked_for: list[float] = []
    clip = read_model_audio(audio, owner, pipe, family, source_rate=sampling_rate, normalize=request.normalize)

    def rehearsed(seconds: float, text: str = caption) -> Rehearsed:
        asked_for.append(seconds)
        return rehearse(
            pipe,
            family,
            text,
            values,
            scheduler=scheduler,
            rows=chosen.rows,
            seconds=seconds,
            tokens=request.tokens,
        )

    try:
        known = _of_length(clip, rehearsed, family)
        width, starts, overlap = _windows(clip, known, family, denoiser, request.overlap)
        whole = clip.encoded(starts[-1] + width)
        hop = 1 if clip.mel is not None else clip.hop_length
        encoded = [
            _checked(encode_window(owner, family, whole[:, start * hop : (start + width) * hop]), known, family)
            for start in starts
        ]
        total = starts[-1] + width
        record: dict[str, Any] = {}
        recorder = AttentionRecorder(
            denoiser,
            keep=request.keep,
            max_bytes=request.max_bytes * width // total,
            family=family,
            measure=request.method.measure,
        )
        acting = provenance.acting(pipe, family)
        with randomized(denoiser, blocks, weight_seed, family), held(acting):
            of_caption = functools.lru_cache(lambda text: rehearsed(asked_for[-1], text).denoising)
            texts = functools.partial(CaptionTexts, known.denoising.tokens, family, of_caption, acting.paused)
            asked = Asked(pipe, known.denoising, recorder, known.grid, known.factor, starts, texts, record)
            windows = look_at_windows(
                known.denoising,
                encoded,
                chosen,
                schedule,
                functools.partial(request.method.look, asked),
                getattr(pipe, "_progress_bar_config", {}),
            )
            layers = join_windows(windows, starts, width)
            acted = acting.record
    finally:
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()
    differences = any(len(family.signs(layer.attention)) > 1 for layer in recorder.layers)
    signed = differences and request.method.name == "attention"
    return AttentionMaps.from_layers(
        on_spectrogram(layers, known.factor),
        tokens=[known.denoising.tokens],
        positions=known.denoising.conditioning.positions,
        timesteps=chosen.timesteps,
        grid=SpectrogramGrid(
            **{
                **known.grid.to_dict(),
                "width": total,
                "audio_seconds": min(clip.seconds, total * clip.hop_length / clip.rate),
            }
        ),
        spectrogram=None if clip.mel is None else whole[None, None],
        provenance=provenance.completed(
            {
                **provenance.model(pipe, denoiser, scheduler),
                "family": family.name,
                **chosen.settings,
                "normalize": request.normalize,
                "windows": [start * clip.hop_length / clip.rate for start in starts],
                "overlap": float(overlap),
                "randomized": {"blocks": blocks, "seed": weight_seed} if blocks else None,
                "image": provenance.digest(whole),
                "settings": known.settings,
                "keep": sorted(recorder.keep),
                "tokens": request.tokens,
                "branch": recorder.branch,
                "steps": len(chosen.timesteps),
                "attribution": {**request.method.settings, **record},
            },
            acted,
        ),
        content={
            "family": family.name,
            **request.method.content,
            **(
                {"quantity": SIGNED_PROBABILITY, "signed": 1}
                if signed and request.method.name == "attention"
                else {}
            ),
        },
    )


def _scheduler(owner: Any, pipe: Any, family: Family) -> Any:
    """Return the scheduler of a pipeline; a published object may hold it beside the model."""
    for place, name in ((pipe, family.scheduler), (owner, family.scheduler), (owner, "scheduler")):
        if getattr(place, name, None) is not None:
            return getattr(place, name)
    raise CaptureError(
        f"{type(owner).__name__} has no {family.scheduler}, so its noise schedule is not known. Pass the object "
        "that holds it."
    )


def _of_length(clip: ModelAudio, rehearsed: Any, family: Family) -> Rehearsed:
    """Return a call of the pipeline that is long enough for the clip, or its longest one."""
    known = rehearsed(min(clip.seconds, clip.longest_seconds))
    there = family.latent_size((1, *known.shape))[1]
    if there == clip.latents - 1:  # some pipelines round down
        known = rehearsed(min(clip.seconds + clip.latent_seconds, clip.longest_seconds))
    return known


def _windows(
    clip: ModelAudio, known: Rehearsed, family: Family, denoiser: Any, asked: float | None
) -> tuple[int, tuple[int, ...], float]:
    """Return the width of a window, where windows begin, in columns of the grid, and their overlap in seconds."""
    width = family.latent_size((1, *known.shape))[1] * clip.frames
    if known.factor != clip.frames:
        raise CaptureError(
            f"One latent of this call is {known.factor} frames, but the family {family.name} states {clip.frames}."
        )
    levels = len(getattr(denoiser.config, "block_out_channels", [0])) if family.queries.has_freq else 1
    column = min(clip.frames * family.patch(denoiser) * 2 ** (levels - 1), width)
    frame_seconds = clip.hop_length / clip.rate
    overlap = default_overlap(column, width, frame_seconds) if asked is None else asked
    starts = window_starts(
        clip.latents * clip.frames,
        overlap=overlap if clip.latents * clip.frames > width else 0.0,
        column=column,
        width=width,
        frame_seconds=frame_seconds,
    )
    return width, starts, overlap


def _checked(latents: Any, known: Rehearsed, family: Family) -> Any:
    if tuple(latents.shape[1:]) != known.shape:
        raise CaptureError(
            f"The audio encoder made latents of the shape {tuple(latents.shape[1:])}, but the denoiser of "
            f"{family.name} is called with {known.shape}. Is it the encoder of another model?"
        )
    return latents
