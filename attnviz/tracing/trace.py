"""Trace a pipeline: combine attention, tokens and spectrogram of every call into maps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import diffusers
import numpy as np

from attnviz.audio import MEL, SpectrogramGrid, image_to_mel
from attnviz.capture import (
    DEFAULT_MAX_BYTES,
    UNSETTLED,
    AttentionEdit,
    AttentionRecorder,
    CapturedLayer,
    Conditioning,
    Recording,
    measure_of,
)
from attnviz.capture.changes import observed
from attnviz.errors import CaptureError, PromptError
from attnviz.maps import AttentionMaps
from attnviz.maps.layer import SIGNED_PROBABILITY
from attnviz.models.families import STABLE_DIFFUSION, Family, family_of
from attnviz.models.pipelines.mixin import AuffusionMixin
from attnviz.text import TokenTable
from attnviz.tracing import provenance
from attnviz.tracing.family_calls import FamilyCall, FamilyCalls, scheduler_of
from attnviz.tracing.keys import (
    EditOf,
    Tokens,
    check_family,
    check_pipeline,
    check_tokens,
    kept_positions,
    on_spectrogram,
    token_table,
)
from attnviz.tracing.seen_calls import SeenCalls

Arguments = Mapping[str, Any]
Before = Callable[[Arguments], None]
After = Callable[[Arguments, Any], None]


@dataclass
class _Run:
    """One call of the pipeline, observed outside its denoiser."""

    recording: Recording
    tokens: list[TokenTable]
    audio_seconds: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    acted: dict[str, Any] | None = None
    log_mels: np.ndarray | None = None
    call: FamilyCall | None = None
    maps: AttentionMaps | None = None


class Trace(SeenCalls[_Run]):
    """Observe every call of a pipeline, and return its attention maps.

    Created by `attnviz.trace`, and by `attnviz.editing` with an edit of the attention. It is a context manager for
    one thread.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        The observed pipeline.
    """

    _object = "pipeline"
    _nothing = (
        "No denoiser call was seen, so there are no maps. Call the traced pipeline inside the `with trace(pipe)` "
        "block."
    )

    def __init__(
        self,
        pipe: diffusers.DiffusionPipeline,
        *,
        keep: Collection[Literal["step", "head"]] = (),
        tokens: Tokens = "text",
        branch: Literal["conditional", "both"] = "conditional",
        max_bytes: int = DEFAULT_MAX_BYTES,
        edit: AttentionEdit | EditOf | None = None,
        family: Family | None = None,
        grid: SpectrogramGrid | None = None,
        method: str = "attention",
    ) -> None:
        super().__init__()
        check_tokens(tokens)
        found = family_of(pipe) if family is None else family
        if found is None:
            check_pipeline(pipe, "traced")
        else:
            check_family(pipe, found)
        self.pipe = pipe
        self._tokens = tokens
        self._edit = edit
        self._grid = grid
        if grid is not None and found is not None:
            raise CaptureError(
                f"grid= states the axes of a picture, and the family {found.name} states those of this pipeline."
            )
        self._family = STABLE_DIFFUSION if found is None else found
        self._calls = None if found is None else FamilyCalls(pipe, found, tokens, self._begin_call, self._end_call)
        self._recorder = AttentionRecorder(
            getattr(pipe, self._family.denoiser),
            keep=keep,
            branch=branch,
            max_bytes=max_bytes,
            edit=UNSETTLED if callable(edit) else edit,
            family=self._family,
            measure=measure_of(method),
        )
        self._acting = provenance.acting(pipe, found)
        self._runs: list[_Run] = []

    def _make(self) -> None:
        """Start observing all cross-attention layers, or none."""
        self._enter(self._recorder)
        self._enter(self._acting)
        if self._calls is not None:
            self._enter(self._calls)
        else:
            self._observe_pipeline()
        self._finally(self._note_what_acted)

    def _observe_pipeline(self) -> None:
        """Observe what a pipeline of Stable Diffusion's anatomy calls on itself."""
        for owner, name, before, after in (
            (self.pipe, "encode_prompt", None, self._after_encode_prompt),
            (self.pipe, "prepare_latents", self._before_prepare_latents, None),
            (self.pipe, "prepare_mask_latents", self._before_prepare_mask_latents, None),
            (self.pipe, "prepare_depth_map", self._before_prepare_depth_map, None),
            (self.pipe, "prepare_extra_step_kwargs", self._note("eta"), None),
            (self.pipe, "get_timesteps", self._note("strength"), None),
            (self.pipe.vae, "decode", None, self._after_decode),
            # Every pipeline of diffusers calls this once, after the loop and the decoding.
            (self.pipe, "maybe_free_model_hooks", self._before_the_end, None),
            (self.pipe, "_finish", None, self._after_finish),
        ):
            self._observe(owner, name, before, after)

    def _observe(self, owner: Any, name: str, before: Before | None, after: After | None) -> None:
        """Observe each call of an object's bound method; do nothing if the object lacks the method."""
        method = getattr(owner, name, None)
        if method is not None:
            self._replace(owner, name, observed(method, before=before, after=after))

    def so_far(self) -> Mapping[str, CapturedLayer]:
        """Return the attention of the current pipeline call, each layer on its grid; empty between calls.

        The attention is averaged over the completed denoiser calls. It serves to steer a generation by its maps.
        """
        run = self._under_way()
        return {} if run is None else self._recorder.captured(run.recording)

    def _seen(self) -> list[_Run]:
        return [run for run in self._runs if run.recording.timesteps]

    def _note_what_acted(self) -> None:
        """Store the digests of a call that has ended or was interrupted."""
        if self._runs and self._runs[-1].acted is None:
            self._runs[-1].acted = self._acting.record

    def _under_way(self) -> _Run | None:
        """Return the run of the current call; None between calls."""
        return self._runs[-1] if self._runs and not self._runs[-1].recording.ended else None

    def _after_encode_prompt(self, arguments: Arguments, result: Any) -> None:
        prompt = arguments.get("prompt")
        if prompt is None:
            raise PromptError(
                "The pipeline was called with prompt_embeds alone, so the word of each key is not known. Pass the "
                "prompt itself."
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        embeds, negative = result
        guided = bool(arguments.get("do_classifier_free_guidance"))
        tables = [token_table(self.pipe, prompt) for prompt in prompts]
        run = self._begin(
            Conditioning(embeds, negative if guided else None, len(prompts), kept_positions(tables, self._tokens)),
            tables,
            provenance.settings(self.pipe, guided, arguments.get("negative_prompt")),
            functools.partial(_announced_calls, self.pipe),
        )
        run.audio_seconds = getattr(self.pipe, "duration", None)

    def _begin(
        self,
        conditioning: Conditioning,
        tables: list[TokenTable],
        settings: dict[str, Any],
        announced: Callable[[], int],
    ) -> _Run:
        """Start the run of a call whose prompts are encoded."""
        self._note_what_acted()
        self._acting.begin()

        def expected_calls() -> int:
            self._grid_of(run)  # at the first denoiser call: what has no seconds is refused before it is computed
            return announced()

        edit = self._edit(tables) if callable(self._edit) else self._edit
        run = _Run(self._recorder.begin(conditioning, expected_calls, edit), tables, None, settings)
        run.settings |= {
            "keep": sorted(self._recorder.keep),
            "tokens": self._tokens,
            "branch": self._recorder.branch,
        }
        if edit is not None:
            run.settings["edit"] = dict(edit.record)
        self._runs.append(run)
        return run

    def _begin_call(self, call: FamilyCall, conditioning: Conditioning, tables: list[TokenTable]) -> None:
        scheduler = scheduler_of(self.pipe, self._family, call)
        settings = provenance.family_settings(self.pipe, self._family, scheduler, call.arguments, call.settings)
        # One conditional call of the denoiser for each timestep, which are set after the prompt is encoded.
        run = self._begin(conditioning, tables, settings, lambda: len(scheduler.timesteps))
        run.call = call

    def _end_call(self, call: FamilyCall) -> None:
        self._note_what_acted()
        run = self._under_way()
        if run is not None and run.recording.complete and call.log_mels is not None:
            run.log_mels = call.log_mels.numpy()
        self._recorder.end()

    def _before_prepare_latents(self, arguments: Arguments) -> None:
        if run := self._under_way():
            run.settings["seeds"] = provenance.seeds(arguments.get("generator"))
            run.settings["latents"] = provenance.digest(arguments.get("latents"))
            run.settings["image"] = provenance.digest(arguments.get("image"))

    def _before_prepare_mask_latents(self, arguments: Arguments) -> None:
        if run := self._under_way():
            run.settings["mask"] = provenance.digest(arguments.get("mask"))

    def _before_prepare_depth_map(self, arguments: Arguments) -> None:
        if run := self._under_way():
            run.settings |= {name: provenance.digest(arguments.get(name)) for name in ("image", "depth_map")}

    def _note(self, name: str) -> Callable[[Arguments], None]:
        def note(arguments: Arguments) -> None:
            if run := self._under_way():
                value = arguments.get(name)
                run.settings[name] = None if value is None else float(value)  # latent consistency has no eta

        return note

    def _after_decode(self, arguments: Arguments, result: Any) -> None:
        """Store the image that a plain pipeline decodes after its loop, not the previews of a callback."""
        run = self._under_way()
        if run is None or isinstance(self.pipe, AuffusionMixin) or not run.recording.complete:
            return
        images = result[0] if isinstance(result, tuple) else result.sample
        if len(images) == len(run.recording.conditioning.prompt_embeds) and images.shape[2] == MEL.n_mels:
            run.log_mels = image_to_mel((images[:, 0].float() / 2 + 0.5).clamp(0, 1)).cpu().numpy()

    def _before_the_end(self, arguments: Arguments) -> None:
        self._note_what_acted()
        self._recorder.end()

    def _after_finish(self, arguments: Arguments, result: Any) -> None:
        """Store the spectrograms that an Auffusion pipeline is about to return."""
        if arguments["output_type"] != "latent" and self._runs:
            self._runs[-1].log_mels = result[1]  # (audios, spectrograms, images), as a tuple or an output

    def _maps_of(self, run: _Run) -> AttentionMaps:
        if run.maps is not None:
            return run.maps
        maps = self._make_maps(run)
        if run.recording.ended:  # the maps of a running call still change
            run.maps, run.recording.store = maps, None
        return maps

    def _grid_of(self, run: _Run) -> tuple[SpectrogramGrid, int]:
        """Return the grid of the maps, and its rows and columns per row and column of the latents.

        Raises
        ------
        CaptureError
            If the seconds and hertz of the model's image are not known, or `grid` is of another image.
        """
        if self._calls is not None and run.call is not None:
            return self._calls.grid(run.call, run.recording.latent_size)
        factor = self.pipe.vae_scale_factor
        rows, columns = (size * factor for size in run.recording.latent_size)
        if self._grid is not None:
            if (self._grid.height, self._grid.width) != (rows, columns):
                raise CaptureError(
                    f"grid has {self._grid.height} x {self._grid.width} cells, but the image of this call has "
                    f"{rows} x {columns}. Pass height={self._grid.height}, width={self._grid.width} to the "
                    "pipeline, or another grid to trace()."
                )
            return self._grid, factor
        if rows != MEL.n_mels and not isinstance(self.pipe, AuffusionMixin):
            raise CaptureError(
                f"The image of this call has {rows} x {columns} cells. Only Auffusion's spectrograms, of "
                f"{MEL.n_mels} rows, have known seconds and hertz: a picture has none. For another model of "
                f"spectrograms, trace(pipe, grid=SpectrogramGrid(height={rows}, width={columns}, "
                "sampling_rate=..., hop_length=..., fmin=..., fmax=...)) states them."
            )
        return SpectrogramGrid(height=rows, width=columns, audio_seconds=run.audio_seconds), factor

    def _make_maps(self, run: _Run) -> AttentionMaps:
        recording = run.recording
        grid, factor = self._grid_of(run)
        return AttentionMaps.from_layers(
            on_spectrogram(self._recorder.captured(recording), factor),
            tokens=run.tokens,
            positions=recording.conditioning.positions,
            timesteps=recording.timesteps,
            grid=grid,
            spectrogram=_by_prompt(run.log_mels, recording.conditioning),
            provenance=provenance.completed(
                {**run.settings, "steps": recording.expected_calls},
                self._acting.record if run.acted is None else run.acted,
            ),
            complete=recording.complete,
            content={
                "family": self._family.name,
                "quantity": SIGNED_PROBABILITY if self._recorder.signed else self._recorder.measure.quantity,
                "signed": int(self._recorder.signed),
                "method": self._recorder.measure.name,
            },
        )


def _announced_calls(pipe: Any) -> int:
    """Return the number of denoiser calls that the pipeline has settled on before its loop begins."""
    return int(getattr(pipe, "num_timesteps", len(pipe.scheduler.timesteps)))


def _by_prompt(log_mels: np.ndarray | None, conditioning: Conditioning) -> np.ndarray | None:
    if log_mels is None:
        return None
    return log_mels.reshape(conditioning.prompts, conditioning.images_per_prompt, *log_mels.shape[1:])
