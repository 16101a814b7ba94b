"""Edit requests of the command line, which are checked without a model and then run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attnviz.api import trace
from attnviz.audio import MEL, SpectrogramGrid, load_audio
from attnviz.cli.jobs import WIDTH, check_mappable, check_prompt
from attnviz.diffusion.clip import read_clip
from attnviz.editing.audibility import warn_of_inaudible_words
from attnviz.editing.generating import apply_edit
from attnviz.editing.injection import SOURCE, TARGET
from attnviz.editing.inverting import InvertedClip, Method, invert, read_editable
from attnviz.editing.masks import time_frequency_mask
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import AttnVizError
from attnviz.maps import AttentionMaps
from attnviz.maps.prompts import maps_of_prompt
from attnviz.models.pipelines import (
    AuffusionAudioToAudioPipeline,
    AuffusionInpaintPipeline,
    AuffusionPipeline,
    calls,
    inputs,
)
from attnviz.models.pipelines.mixin import DEFAULT_SECONDS
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.models.pipelines.sampling import Sampling
from attnviz.plots.editing import EditedWord


@dataclass(frozen=True)
class Edited:
    """The result of an edit and its source.

    Attributes
    ----------
    before, after : (numpy.ndarray, numpy.ndarray)
        Waveform (samples,) and natural-log mel spectrogram (bands, frames).
    maps : AttentionMaps
        Maps of the edit.
    source_maps : AttentionMaps or None
        Maps of the source, if it was generated.
    words : list of EditedWord
        Edited words.
    region : mapping
        ``span`` and ``band`` of the regenerated part, if it is not the whole clip.
    """

    before: tuple[np.ndarray, np.ndarray]
    after: tuple[np.ndarray, np.ndarray]
    maps: AttentionMaps
    source_maps: AttentionMaps | None = None
    words: list[EditedWord] = field(default_factory=list)
    region: Mapping[str, Any] = field(default_factory=dict)


class EditRequest(Protocol):
    """An edit requested on the command line."""

    @property
    def record(self) -> dict[str, Any]:
        """Entries for ``run.json``; ``prompt`` is that of the maps."""
        ...

    def check(self) -> None:
        """Check everything that needs no model."""
        ...

    def settled(self, recommended: RecommendedSettings) -> EditRequest:
        """Return the same request with missing values taken from a checkpoint's recommendations."""
        ...

    def run(self, pipe: AuffusionPipeline) -> Edited:
        """Make the edit."""
        ...


@dataclass(frozen=True)
class PromptEditRequest:
    """A prompt-to-prompt edit, of a generation or of a real clip."""

    edit: PromptEdit
    sampling: Sampling
    duration: float | None = None
    clip: Path | None = None
    inversion: Method = "negative-prompt"
    settings_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """Entries for ``run.json``."""
        clip = {} if self.clip is None else {"clip": str(self.clip), "inversion": self.inversion}
        how = {**asdict(self.sampling), "duration": self.duration, **clip}
        return {
            "prompt": self.edit.target, **self.edit.record, **how, "settings_from": dict(self.settings_from)
        }  # fmt: skip

    def check(self) -> None:
        """Check everything that needs no model.

        Raises
        ------
        AttnVizError
            With the value and the allowed values.
        """
        for prompt in (self.edit.source, self.edit.target):
            check_prompt(prompt, self.sampling.negative_prompt)
        self.sampling.check()
        inputs.check_duration(self.duration, WIDTH, DEFAULT_SECONDS)
        if self.clip is not None:
            read_editable(self.clip)
            if self.inversion == "negative-prompt" and self.sampling.negative_prompt is not None:
                raise AttnVizError(
                    "Negative-prompt inversion uses the source prompt as negative prompt. Omit --negative, "
                    "or use --inversion ddim."
                )

    def settled(self, recommended: RecommendedSettings) -> PromptEditRequest:
        """Return the same request with missing values taken from a checkpoint's recommendations."""
        edit, sampling = self.edit, self.sampling
        given = {
            **sampling.recommendable,
            "cross_replace_steps": edit.cross_replace_steps,
            "self_replace_steps": edit.self_replace_steps,
            "blend_threshold": edit.blend,
        }
        settings_from = recommended.origins(given, edit.kind)
        settled = sampling.settled(recommended, edit.kind)
        if self.clip is not None and sampling.num_inference_steps is None:
            # The clip is reconstructed with the number of steps of its inversion.
            settled = replace(settled, num_inference_steps=recommended.value("num_inference_steps", "invert"))
            settings_from["num_inference_steps"] = recommended.origin("num_inference_steps", "invert")
        settings_from["blend"] = settings_from.pop("blend_threshold")
        return replace(self, edit=edit.settled(recommended), sampling=settled, settings_from=settings_from)

    def run(self, pipe: AuffusionPipeline) -> Edited:
        """Make the edit."""
        calls.check_steps(pipe.scheduler, self.sampling.call["num_inference_steps"], {})
        for prompt in (self.edit.source, self.edit.target):
            check_mappable(pipe, prompt)
        arguments = {name: value for name, value in self.sampling.call.items() if value is not None}
        if self.duration is not None:
            arguments["duration"] = self.duration
        clip: InvertedClip | None = None
        if self.clip is not None:
            clip = invert(
                pipe,
                self.clip,
                self.edit.source,
                num_inference_steps=self.sampling.num_inference_steps,
                method=self.inversion,
            )
        made = apply_edit(pipe, self.edit, clip=clip, **arguments)
        audios, log_mels = made.output.to_tuple()[:2]
        warn_of_inaudible_words(self.edit, audios[TARGET], pipe.known_sounds)
        before, after = (maps_of_prompt(made.maps, prompt) for prompt in (SOURCE, TARGET))
        return Edited(
            (audios[SOURCE], log_mels[SOURCE]),
            (audios[TARGET], log_mels[TARGET]),
            after,
            before,
            edited_words(self.edit, before, after),
        )


@dataclass(frozen=True)
class ClipEditRequest:
    """Style transfer of a clip, or inpainting of a span or box of it."""

    clip: Path
    prompt: str
    sampling: Sampling
    strength: float | None = None
    span: tuple[float, float] | None = None
    band: tuple[float, float] | None = None
    inpaint: bool = False
    context: float | None = None
    normalize: bool | None = None
    settings_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of edit."""
        return "inpaint" if self.inpaint else "style"

    @property
    def record(self) -> dict[str, Any]:
        """Entries for ``run.json``."""
        where = {}
        if self.inpaint:
            # JSON has no infinity, which is the whole clip.
            context = None if self.context == math.inf else self.context
            where = {"span": self.span, "band": self.band, "context": context, "normalize": self.normalize}
        own = {"edit": self.kind, "clip": str(self.clip), "prompt": self.prompt, "strength": self.strength}
        return {**own, **where, **asdict(self.sampling), "settings_from": dict(self.settings_from)}

    def check(self) -> None:
        """Check everything that needs no model.

        Raises
        ------
        AttnVizError
            With the value and the allowed values.
        """
        check_prompt(self.prompt, self.sampling.negative_prompt)
        self.sampling.check()
        if self.strength is not None:
            inputs.check_strength(self.strength)
        if self.context is not None:
            inputs.check_context(self.context)
        self._arguments(load_audio(self.clip))

    def settled(self, recommended: RecommendedSettings) -> ClipEditRequest:
        """Return the same request with missing values taken from a checkpoint's recommendations."""
        own: dict[str, Any] = {"strength": self.strength}
        if self.inpaint:
            own |= {"context": self.context, "normalize": self.normalize}
        return replace(
            self,
            **recommended.settle(own, self.kind),
            sampling=self.sampling.settled(recommended, self.kind),
            settings_from=recommended.origins({**self.sampling.recommendable, **own}, self.kind),
        )

    def run(self, pipe: AuffusionPipeline) -> Edited:
        """Make the edit."""
        check_mappable(pipe, self.prompt)
        waveform = load_audio(self.clip)
        kind = AuffusionInpaintPipeline if self.inpaint else AuffusionAudioToAudioPipeline
        other = kind.from_pipe(pipe)
        with trace(other) as traced:
            audios, log_mels, _ = other(self.prompt, waveform, **self._arguments(waveform), return_dict=False)
        seen = read_clip(
            waveform[: WIDTH * MEL.hop_length], normalize=self.normalize is not False, overlap=0.0, column=1
        )
        before = waveform[: len(audios[0])]
        region = {"span": self.span, "band": self.band} if self.inpaint else {}
        return Edited((before, seen.log_mel), (audios[0], log_mels[0]), traced.maps, region=region)

    def _arguments(self, waveform: np.ndarray) -> dict[str, Any]:
        """Return the pipeline's arguments, except prompt and clip."""
        arguments = {**self.sampling.call, "strength": self.strength}
        if self.inpaint:
            seconds = min(len(waveform) / MEL.sampling_rate, SpectrogramGrid().seconds)
            arguments |= {"context": self.context, "normalize": self.normalize}
            arguments["mask"] = time_frequency_mask(self.span, self.band, seconds)
        return arguments


def edited_words(edit: PromptEdit, before: AttentionMaps, after: AttentionMaps) -> list[EditedWord]:
    """Return the maps of the edited words, before and after."""
    pairs = [(pair.source, pair.target) for pair in edit.pairs if not pair.same]
    known = {target for _, target in pairs}
    weighed = [span for span in edit.changed[1] if span not in known]
    together = {pair.target: pair.source for pair in edit.pairs}
    pairs += [(together.get(span), span) for span in weighed]
    return [
        EditedWord(
            None if source is None else before.heatmap(source),
            None if target is None else after.heatmap(target),
            "" if source is None else edit.source[slice(*source)],
            "" if target is None else edit.target[slice(*target)],
        )
        for source, target in pairs
    ]
