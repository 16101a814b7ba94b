"""Compute attention maps of a real clip with a model that writes audio codes: MusicGen and MusicGen Melody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from attnviz.attribution.ablation import LeaveOneOut
from attnviz.attribution.code_ablation import QUANTITY, left_out
from attnviz.attribution.randomizing import randomized, randomized_blocks
from attnviz.attribution.settings import Request, check_without_noise
from attnviz.audio.files import AudioSource
from attnviz.capture import CapturedLayer, SequenceRecorder, SequenceRecording, held
from attnviz.diffusion.model_audio import ModelAudio, checked_encoding, read_model_audio
from attnviz.diffusion.windows import default_overlap, join_windows, window_starts
from attnviz.errors import AudioError, CaptureError, MemoryBudgetError
from attnviz.maps import AttentionMaps
from attnviz.models.families import Family
from attnviz.text.encoded import encoded_table
from attnviz.tracing.generation import (
    acting_digests,
    delays_of,
    first_text,
    frames_grid,
    key_segments,
    model_settings,
    tokenizer_of,
)
from attnviz.tracing.keys import kept_positions, on_spectrogram
from attnviz.tracing.trace import provenance


def explain_codes(
    model: Any,
    family: Family,
    audio: AudioSource,
    caption: str,
    request: Request,
    processor: object,
    sampling_rate: int | None,
) -> AttentionMaps:
    """Compute attention maps of a clip's codes, teacher-forced; see `attnviz.explain`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    family : Family
        With `codebooks`.
    audio, caption, processor, sampling_rate
        As for `attnviz.explain`.
    request : Request
        The other settings.
    """
    check_without_noise(vars(request), family.name)
    request.method.check_family(family)
    axes = {request.keep} if isinstance(request.keep, str) else set(request.keep)
    if axes - {"head"}:
        raise CaptureError(
            f"keep={request.keep!r} names an axis that {family.name} does not have: it writes each frame once, so "
            "there are no steps. keep=('head',) is possible."
        )
    request.method.check(frozenset(axes))
    tokenizer = tokenizer_of(model, processor, "explain(model, clip, caption, ")
    checked_encoding(model, family)
    decoder = getattr(model, family.denoiser)
    blocks = randomized_blocks(decoder, request.randomize, family)
    weight_seed = request.weight_seed(blocks)
    clip = read_model_audio(audio, model, model, family, source_rate=sampling_rate, normalize=request.normalize)
    delays = delays_of(model, family)
    if clip.latents < delays:
        raise AudioError(
            f"audio has {clip.latents} frames of codes; {family.name} needs at least {delays} "
            f"({delays * clip.latent_seconds:.3f} s), one for each codebook of its delay."
        )
    codes = clip_codes(model, family, clip)
    width = clip.latents if clip.longest is None else min(clip.latents, clip.longest - delays)
    overlap = default_overlap(1, width, clip.latent_seconds) if request.overlap is None else request.overlap
    starts = window_starts(
        clip.latents,
        overlap=overlap if clip.latents > width else 0.0,
        column=1,
        width=width,
        frame_seconds=clip.latent_seconds,
    )
    inputs = tokenizer([caption], return_tensors="pt").to(model.device)
    segments = key_segments(model, family)
    table = encoded_table(tokenizer, caption, inputs["input_ids"][0].tolist(), segments)
    recorder = SequenceRecorder(
        decoder,
        family,
        keep_heads="head" in axes,
        max_bytes=request.max_bytes * width // clip.latents,
        measure=request.method.measure,
    )

    kept = kept_positions([table], request.tokens)
    method = request.method

    def windows() -> Iterator[Mapping[str, CapturedLayer]]:
        for start in starts:
            given = delayed(decoder, codes[:, start : start + width], delays, model.generation_config)
            if isinstance(method, LeaveOneOut):
                own = codes[:, start : start + width]
                yield left_out(model, tokenizer, table, kept, method.phrases, method.removal, own, given, delays)
                continue
            recording = SequenceRecording(
                prompts=1,
                keys=kept,
                positions=width + delays - 1,
                first_text=first_text(segments),
                delays=delays,
            )
            try:
                with held(recorder):
                    recorder.begin(recording)
                    model(
                        input_ids=inputs["input_ids"],
                        attention_mask=inputs["attention_mask"],
                        decoder_input_ids=given,
                        use_cache=False,
                    )
            except MemoryBudgetError as error:
                if len(starts) == 1:
                    raise
                raise MemoryBudgetError(
                    f"The clip needs {len(starts)} windows, which share the budget. {error}"
                ) from error
            yield recorder.captured(recording)

    with randomized(decoder, blocks, weight_seed, family):
        layers = join_windows(windows(), starts, width)
        acted = acting_digests(model, family)
    return AttentionMaps.from_layers(
        on_spectrogram(layers, 1),
        tokens=[table],
        positions=kept,
        timesteps=[0.0],
        grid=frames_grid(model, family, clip.latents, delays),
        provenance={
            **model_settings(model, family),
            "latents": "codes",
            "guidance_scale": 1.0,
            "windows": [start * clip.latent_seconds for start in starts],
            "overlap": float(overlap),
            "randomized": {"blocks": blocks, "seed": weight_seed} if blocks else None,
            "image": provenance.digest(codes),
            "keep": sorted(axes),
            "tokens": request.tokens,
            "branch": "conditional",
            "attribution": method.settings,
            **acted,
        },
        content={
            "family": family.name,
            **method.content,
            **({"quantity": QUANTITY, "signed": 1} if isinstance(method, LeaveOneOut) else {}),
        },
    )


def clip_codes(model: Any, family: Family, clip: ModelAudio) -> torch.Tensor:
    """Return the codes of a clip.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    family : Family
        With `audio`.
    clip : ModelAudio

    Returns
    -------
    torch.Tensor of int64, shape (codebooks, frames)
        Of several channels, the codebooks of the channels alternate, as in the model.

    Raises
    ------
    CaptureError
        If the codec makes another number of frames or codebooks than the model writes.
    """
    codec = getattr(model, checked_encoding(model, family)[0].encoder)
    weight = next(codec.parameters())
    wave = torch.from_numpy(np.ascontiguousarray(clip.encoded(clip.latents))).to(weight.device, weight.dtype)
    # Each channel by itself: the codec of the stereo models has one channel, too.
    made = [codec.encode(channel[None, None]).audio_codes for channel in wave]
    frames, _, books, length = made[0].shape
    wanted = model.decoder.num_codebooks
    if frames != 1 or length != clip.latents or books * len(made) != wanted:
        raise CaptureError(
            f"The codec made codes of the shape {tuple(made[0].shape)} for each of {len(made)} channels, but "
            f"{family.name} writes {wanted} codebooks, and the clip is {clip.latents} frames long. Does the codec "
            "divide clips into chunks, or is it of another model?"
        )
    return torch.stack([each[0, 0] for each in made], dim=1).flatten(0, 1)


def delayed(decoder: Any, codes: torch.Tensor, delays: int, settings: Any) -> torch.Tensor:
    """Return the inputs of a decoder with which it predicts given codes.

    Parameters
    ----------
    decoder : torch.nn.Module
        With ``build_delay_pattern_mask``.
    codes : torch.Tensor of int64, shape (codebooks, frames)
    delays : int
        Positions of a frame.
    settings : transformers.GenerationConfig

    Returns
    -------
    torch.Tensor of int64, shape (codebooks, frames + delays - 1)
        The start token, and codebook `k` of frame `f` at position ``f + k + 1``; it is predicted at ``f + k``.
    """
    start = torch.full_like(codes[:, :1], int(settings.decoder_start_token_id))
    pad = int(settings.pad_token_id)
    _, pattern = decoder.build_delay_pattern_mask(
        torch.cat([start, codes], dim=1), pad_token_id=pad, max_length=codes.shape[1] + delays
    )
    return pattern[:, :-1]
