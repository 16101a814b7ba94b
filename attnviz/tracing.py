"""Tracing a pipeline: capture, tokens and spectrogram of every call, joined to maps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import diffusers
import numpy as np
import torch
import transformers

import attnviz
from attnviz.audio import MEL, SpectrogramGrid, image_to_mel
from attnviz.capture import DEFAULT_MAX_BYTES, AttentionRecorder, Conditioning, Recording
from attnviz.errors import CaptureError, MapsError, PromptError
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.pipelines.mixin import AuffusionMixin
from attnviz.text import TokenTable, clip_token_table

Tokens = Literal["text", "all"]


@dataclass
class _Run:
    """One call of the pipeline, as seen from outside its denoiser."""

    recording: Recording
    tokens: list[TokenTable]
    positions: list[int]
    settings: dict[str, Any]
    audio_seconds: float | None = None
    images: torch.Tensor | None = None
    seeds: list[int] = field(default_factory=list)


class Trace:
    """Observes every call of a pipeline, and hands out its attention maps.

    Made by `attnviz.trace`; used as a context manager.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline observed.
    """

    def __init__(
        self,
        pipe: diffusers.DiffusionPipeline,
        *,
        keep: Collection[Literal["step", "head"]] = (),
        tokens: Tokens = "text",
        branch: Literal["conditional", "both"] = "conditional",
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        if tokens not in ("text", "all"):
            raise CaptureError(f"tokens={tokens!r} is unknown; it is 'text' (no padding) or 'all'.")
        if getattr(pipe, "unet", None) is None or not hasattr(pipe, "encode_prompt"):
            raise CaptureError(
                f"{type(pipe).__name__} cannot be traced: a pipeline with a U-Net and encode_prompt is expected, "
                "such as AuffusionPipeline or StableDiffusionPipeline."
            )
        self.pipe = pipe
        self._tokens = tokens
        self._recorder = AttentionRecorder(pipe.unet, keep=keep, branch=branch, max_bytes=max_bytes)
        self._runs: list[_Run] = []
        self._maps: dict[int, AttentionMaps] = {}
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        """Start observing: all cross-attention layers, or none."""
        with ExitStack() as stack:
            stack.enter_context(self._recorder)
            stack.enter_context(_observed(self.pipe, "encode_prompt", self._after_encode_prompt))
            stack.enter_context(_observed(self.pipe, "prepare_latents", self._after_prepare_latents))
            stack.enter_context(_observed(self.pipe.vae, "decode", self._after_decode))
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop observing, whatever ended the block. What was seen until then is kept."""
        self._exit.close()

    @property
    def coverage(self) -> tuple[int, int]:
        """Cross-attention layers observed, and how many the U-Net has. They are equal: all or none."""
        observed = len(self._recorder.layers)
        return observed, observed

    @property
    def runs(self) -> list[AttentionMaps]:
        """The maps of every pipeline call, in order; calls without a single step seen are left out."""
        return [self._maps_of(index) for index, run in enumerate(self._runs) if run.recording.timesteps]

    @property
    def maps(self) -> AttentionMaps:
        """The maps of the pipeline call.

        Raises
        ------
        MapsError
            If there was none, or more than one: then `runs` holds them.
        """
        seen = [index for index, run in enumerate(self._runs) if run.recording.timesteps]
        if not seen:
            raise MapsError(
                "No denoiser call was seen, so there are no maps. Call the traced pipeline inside the "
                "`with trace(pipe)` block."
            )
        if len(seen) > 1:
            raise MapsError(
                f"The pipeline was called {len(seen)} times in this block; trace.runs holds the maps of each, "
                "in order."
            )
        return self._maps_of(seen[0])

    def _after_encode_prompt(self, arguments: dict[str, Any], result: Any) -> None:
        if arguments.get("prompt") is None:
            raise PromptError(
                "The pipeline was called with prompt_embeds alone, so which word each key is is not known. Pass "
                "the prompt itself."
            )
        prompts = [arguments["prompt"]] if isinstance(arguments["prompt"], str) else list(arguments["prompt"])
        embeds, negative = result
        guided = bool(arguments.get("do_classifier_free_guidance"))
        tables = [self._token_table(prompt) for prompt in prompts]
        positions = self._positions(tables)
        conditioning = Conditioning(embeds, negative if guided else None, len(prompts), positions)
        recording = self._recorder.begin(conditioning, functools.partial(_announced_calls, self.pipe))
        settings = self._settings(arguments, guided)
        self._runs.append(_Run(recording, tables, positions, settings, getattr(self.pipe, "duration", None)))

    def _after_prepare_latents(self, arguments: dict[str, Any], result: Any) -> None:
        generator = arguments.get("generator")
        generators = generator if isinstance(generator, list) else [generator] if generator else []
        if self._runs:
            self._runs[-1].seeds = [each.initial_seed() for each in generators]

    def _after_decode(self, arguments: dict[str, Any], result: Any) -> None:
        if self._runs:
            image = result[0] if isinstance(result, tuple) else result.sample
            self._runs[-1].images = (image[:, 0].float() / 2 + 0.5).clamp(0, 1).cpu()

    def _token_table(self, prompt: str) -> TokenTable:
        # Auffusion's pipelines have just warned of words that were cut off; diffusers' own name none.
        warn = not isinstance(self.pipe, AuffusionMixin)
        conditioner = getattr(self.pipe, "conditioner", None)
        if conditioner is not None:
            return conditioner.token_table(prompt, warn=warn)
        if hasattr(self.pipe, "maybe_convert_prompt"):  # textual inversion may stand for several tokens
            prompt = self.pipe.maybe_convert_prompt(prompt, self.pipe.tokenizer)
        return clip_token_table(self.pipe.tokenizer, prompt, warn=warn)

    def _positions(self, tables: Sequence[TokenTable]) -> list[int]:
        """Key positions kept: those that are more than padding in at least one prompt."""
        rows = [table.rows if self._tokens == "all" else table.rows.query("kind != 'padding'") for table in tables]
        return sorted({int(position) for table in rows for position in table["position"]})

    def _settings(self, arguments: dict[str, Any], guided: bool) -> dict[str, Any]:
        pipe = self.pipe
        return {
            "pipeline": type(pipe).__name__,
            "model": pipe.config.get("_name_or_path", ""),
            "revision": pipe.config.get("_revision"),
            "dtype": str(pipe.unet.dtype).removeprefix("torch."),
            "scheduler": type(pipe.scheduler).__name__,
            "guidance_scale": float(pipe.guidance_scale) if guided else None,
            "negative_prompt": arguments.get("negative_prompt"),
            "adapters": pipe.get_active_adapters() if _has_adapters(pipe) else [],
            "keep": sorted(self._recorder.keep),
            "tokens": self._tokens,
            "branch": self._recorder.branch,
            "versions": {
                "attnviz": attnviz.__version__,
                "diffusers": diffusers.__version__,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
            },
        }

    def _maps_of(self, index: int) -> AttentionMaps:
        run = self._runs[index]
        made = self._maps.get(index)
        # A call still under way goes on changing: keep only the maps of a call that is over.
        if made is not None and len(made.timesteps) == len(run.recording.timesteps) and self._whole(made, run):
            return made
        self._maps[index] = self._make_maps(run)
        return self._maps[index]

    @staticmethod
    def _whole(made: AttentionMaps, run: _Run) -> bool:
        return (made.spectrogram is None) == (run.images is None)

    def _make_maps(self, run: _Run) -> AttentionMaps:
        recording = run.recording
        factor = self.pipe.vae_scale_factor
        rows, columns = recording.latent_size
        grid = SpectrogramGrid(height=rows * factor, width=columns * factor, audio_seconds=run.audio_seconds)
        return AttentionMaps.from_layers(
            {
                name: LayerAttention(layer.attention, layer.dims, layer.heads)
                for name, layer in self._recorder.captured(recording).items()
            },
            tokens=run.tokens,
            positions=run.positions,
            timesteps=recording.timesteps,
            grid=grid,
            spectrogram=_log_mels(run, recording.conditioning),
            provenance={**run.settings, "steps": recording.expected_calls, "seeds": run.seeds},
            complete=recording.complete,
        )


def _announced_calls(pipe: Any) -> int:
    """Denoiser calls the pipeline will make, as it has settled them before its loop begins."""
    return int(getattr(pipe, "num_timesteps", len(pipe.scheduler.timesteps)))


def _has_adapters(pipe: Any) -> bool:
    return bool(getattr(pipe.unet, "peft_config", None))


def _log_mels(run: _Run, conditioning: Conditioning) -> np.ndarray | None:
    """Spectrograms by prompt and image, where the run was decoded to an image of mel bands."""
    if run.images is None or run.images.shape[1] != MEL.n_mels:
        return None
    log_mels = image_to_mel(run.images).numpy()
    return log_mels.reshape(conditioning.prompts, conditioning.images_per_prompt, *log_mels.shape[1:])


@contextmanager
def _observed(owner: Any, name: str, after: Callable[[dict[str, Any], Any], None]) -> Iterator[None]:
    """Have `after(arguments by name, result)` called after each call of a bound method of one object."""
    method = getattr(owner, name, None)
    if method is None:
        yield
        return
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        after(dict(signature.bind(*args, **kwargs).arguments), result)
        return result

    had_own = name in vars(owner)
    setattr(owner, name, call)
    try:
        yield
    finally:
        if had_own:
            setattr(owner, name, method)
        else:
            delattr(owner, name)
