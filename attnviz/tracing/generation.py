"""Trace models of transformers that write audio codes one after the other: MusicGen and MusicGen Melody."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers

from attnviz.arguments import whole_number
from attnviz.audio import SpectrogramGrid
from attnviz.capture import DEFAULT_MAX_BYTES, SequenceRecorder, SequenceRecording, measure_of
from attnviz.capture.identity import Digests, state_digest, weights_digest
from attnviz.errors import CaptureError, MapsError, PromptError
from attnviz.maps import AttentionMaps
from attnviz.models.families import Family, setting
from attnviz.text import TokenTable
from attnviz.text.encoded import KeySegment, encoded_table
from attnviz.tracing.keys import EditOf, Tokens, check_tokens, kept_positions, on_spectrogram
from attnviz.tracing.seen_calls import SeenCalls
from attnviz.tracing.trace import provenance

_LONGEST = 1 << 24


@dataclass
class _Call:
    """One call of ``generate``."""

    arguments: Mapping[str, Any]
    ids: torch.Tensor | None = None
    recording: SequenceRecording | None = None
    tokens: list[TokenTable] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    maps: AttentionMaps | None = None


class GenerationTrace(SeenCalls[_Call]):
    """Observe every ``generate`` of a model, and return its attention maps.

    Created by `attnviz.trace`. It is a context manager for one thread.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    family : Family
        With `codebooks`.
    processor : object
        The model's processor, or the tokenizer of its text encoder.
    keep, tokens, branch, max_bytes, method
        As in `attnviz.trace`. There are no steps to keep, and unguided rows attend to nothing.
    edit : callable, optional
        Makes the edit of a call from its token tables.

    Attributes
    ----------
    pipe : transformers.PreTrainedModel
        The observed model.
    """

    _object = "model"
    _nothing = (
        "No frame was generated, so there are no maps. Call model.generate() inside the `with trace(model)` block."
    )

    def __init__(
        self,
        model: Any,
        family: Family,
        processor: Any,
        *,
        keep: Collection[Literal["step", "head"]] = (),
        tokens: Tokens = "text",
        branch: Literal["conditional", "both"] = "conditional",
        max_bytes: int = DEFAULT_MAX_BYTES,
        method: str = "attention",
        edit: EditOf | None = None,
    ) -> None:
        super().__init__()
        check_tokens(tokens)
        axes = {keep} if isinstance(keep, str) else set(keep)
        if axes - {"head"}:
            raise CaptureError(
                f"keep={keep!r} names an axis that {family.name} does not have: it writes each frame once, so "
                "there are no steps. keep=('head',) is possible."
            )
        if branch != "conditional":
            raise CaptureError(
                f"branch={branch!r} is not possible: the text of {family.name}'s unconditional rows is masked "
                "out, so they attend to nothing."
            )
        self._tokenizer = tokenizer_of(model, processor, "trace(model, ")
        self.pipe = model
        self._family, self._tokens = family, tokens
        self._recorder = SequenceRecorder(
            getattr(model, family.denoiser),
            family,
            keep_heads="head" in axes,
            max_bytes=max_bytes,
            measure=measure_of(method),
            edited=edit is not None,
        )
        self._edit = edit
        self._calls: list[_Call] = []
        self._current: _Call | None = None

    def _make(self) -> None:
        """Start observing all modules that attend to the text, or none."""
        self._enter(self._recorder)
        decoder = getattr(self.pipe, self._family.denoiser)
        encoder = getattr(self.pipe, self._family.encoder)
        self._hook(encoder.register_forward_pre_hook, self._before_encoder, with_kwargs=True)
        self._replace(decoder, "build_delay_pattern_mask", self._with_delays(decoder.build_delay_pattern_mask))
        self._replace(self.pipe, "generate", self._observed(self.pipe.generate))

    def _seen(self) -> list[_Call]:
        return [call for call in self._calls if call.recording is not None and call.recording.frames]

    # A call of generate ---------------------------------------------------------------------------------

    def _observed(self, generate: Any) -> Any:
        @functools.wraps(generate)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._current = _Call(kwargs)
            self._calls.append(self._current)
            try:
                return generate(*args, **kwargs)
            finally:
                self._recorder.end()
                self._current = None

        return call

    def _before_encoder(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._current is not None and self._current.ids is None:
            self._current.ids = (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).detach().cpu()

    def _with_delays(self, build: Any) -> Any:
        """Start the recording where the pattern of delays is made: the last thing before the first position."""

        @functools.wraps(build)
        def call(input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            result = build(input_ids, *args, **kwargs)
            if self._current is not None and self._current.recording is None:
                # Beside the given codes, the pattern has one column for each code of a codebook.
                self._begin(self._current, given=int(result[0].shape[-1]), length=int(result[1].shape[-1]))
            return result

        return call

    def _begin(self, call: _Call, *, given: int, length: int) -> None:
        if call.ids is None:
            raise PromptError(
                "generate() was called without the token ids of a prompt, so there is no text to attend to. Pass "
                "**processor(text=[...], return_tensors='pt')."
            )
        settings = call.arguments.get("generation_config") or self.pipe.generation_config
        if (call.arguments.get("num_return_sequences") or getattr(settings, "num_return_sequences", 1) or 1) > 1:
            raise CaptureError(
                "num_return_sequences above 1 is not traced: the model joins the sequences of a prompt to one "
                "waveform. Repeat the prompt instead."
            )
        segments = key_segments(self.pipe, self._family)
        call.tokens = [self._table(ids.tolist(), segments) for ids in call.ids]
        call.recording = SequenceRecording(
            prompts=len(call.ids),
            keys=kept_positions(call.tokens, self._tokens),
            positions=length - 1,
            first_text=first_text(segments),
            delays=delays_of(self.pipe, self._family, length),
        )
        call.settings = self._settings(call, given - 1)
        edit = None if self._edit is None else self._edit(call.tokens)
        if edit is not None:
            call.settings["edit"] = dict(edit.record)
        self._recorder.begin(call.recording, edit)

    def _table(self, ids: list[int], segments: list[KeySegment]) -> TokenTable:
        prompt = self._tokenizer.decode(ids, skip_special_tokens=True)
        return encoded_table(self._tokenizer, str(prompt), ids, segments)

    def _settings(self, call: _Call, given: int) -> dict[str, Any]:
        settings = self.pipe.generation_config
        scale = call.arguments.get("guidance_scale", getattr(settings, "guidance_scale", None))
        plain = {
            name: value
            for name, value in call.arguments.items()
            if isinstance(value, bool | int | float | str) and name != "guidance_scale"
        }
        return {
            **model_settings(self.pipe, self._family),
            "guidance_scale": None if scale is None else float(scale),
            "frames_given": given,
            "settings": plain,
            "keep": ["head"] if self._recorder.keep_heads else [],
            "tokens": self._tokens,
            "branch": "conditional",
            **acting_digests(self.pipe, self._family),
        }

    # Maps -----------------------------------------------------------------------------------------------

    def _maps_of(self, call: _Call) -> AttentionMaps:
        if call.maps is not None:
            return call.maps
        recording = call.recording
        if recording is None:
            raise MapsError(self._nothing)
        maps = AttentionMaps.from_layers(
            on_spectrogram(self._recorder.captured(recording), 1),
            tokens=call.tokens,
            positions=recording.keys,
            timesteps=[0.0],
            grid=frames_grid(self.pipe, self._family, recording.frames, recording.delays),
            provenance=call.settings,
            complete=recording.complete,
            content={
                "family": self._family.name,
                "method": self._recorder.measure.name,
                "quantity": self._recorder.measure.quantity,
            },
        )
        if call is not self._current:
            call.maps = maps
        return maps


# What explaining a clip with its codes asks of a model, too -------------------------------------------------


def tokenizer_of(model: Any, processor: Any, call: str) -> transformers.PreTrainedTokenizerBase:
    """Return the tokenizer of a model's text encoder, from its processor or as it is.

    Raises
    ------
    CaptureError
        If there is none; `call` is the beginning of the call that passes it.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        raise CaptureError(
            f"{type(model).__name__} is given token ids, so the words are not known without its processor: "
            f"{call}processor=AutoProcessor.from_pretrained(...))."
        )
    return tokenizer


def check_no_processor(model: Any, processor: Any) -> None:
    """Raise if a model that is given the prompt itself gets a processor, which would have no use.

    Raises
    ------
    CaptureError
        With the class of the model.
    """
    if processor is not None:
        raise CaptureError(
            f"processor= has no use for {type(model).__name__}, which tokenizes the prompt itself. "
            "It is for models that are given token ids, as MusicGen is. Leave it out."
        )


def key_segments(model: Any, family: Family) -> list[KeySegment]:
    """Return the segments of a model's keys, with their sizes."""
    return [
        KeySegment(each.kind, int(setting(model, each.size)) if each.size is not None else 0)
        for each in family.keys
    ]


def first_text(segments: list[KeySegment]) -> int:
    """Return the first key of the text."""
    return sum(each.size for each in segments[: [each.kind for each in segments].index("text")])


def delays_of(model: Any, family: Family, length: int | None = None) -> int:
    """Return the positions of a frame: as many as there are codebooks of a channel, if there is a delay.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    family : Family
        With `codebooks`.
    length : int, optional
        Positions of the call, the first included; a short one has no delay.
    """
    config = getattr(model, family.denoiser).config
    books = int(setting(model, family.codebooks or 1)) // int(getattr(config, "audio_channels", 1))
    return books if length is None or length >= 2 * books - 1 else 1


def frames_grid(model: Any, family: Family, frames: int, delays: int) -> SpectrogramGrid:
    """Return the grid of maps over frames of codes.

    Raises
    ------
    MapsError
        If the times of the family are not known.
    """
    seconds = family.seconds
    if seconds is None:
        raise MapsError(f"The times of {family.name} are not known.")
    return SpectrogramGrid(
        height=None,
        width=frames,
        sampling_rate=whole_number("rate", setting(model, seconds.rate), most=_LONGEST),
        hop_length=whole_number("samples", setting(model, seconds.samples), most=_LONGEST),
        smear=delays,
    )


def model_settings(model: Any, family: Family) -> dict[str, Any]:
    """Collect what does not depend on a call."""
    return {
        "pipeline": type(model).__name__,
        "model": getattr(model.config, "_name_or_path", ""),
        "family": family.name,
        "dtype": str(getattr(model, family.denoiser).dtype).removeprefix("torch."),
        "versions": provenance.versions(),
    }


def acting_digests(model: Any, family: Family) -> dict[str, Any]:
    """Digest the weights and the state of the decoder."""
    decoder, digests = getattr(model, family.denoiser), Digests()
    return {
        "weights": {family.denoiser: weights_digest(decoder, digests)},
        "state": {family.denoiser: state_digest(decoder, digests)},
        "inputs": {},
    }
