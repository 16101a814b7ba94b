"""Generate a source and its edit in one batch from the same noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from attnviz.arguments import public
from attnviz.capture import held
from attnviz.editing.blending import Blending
from attnviz.editing.injection import SOURCE, TARGET
from attnviz.editing.inverting import InvertedClip
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import AttnVizError, CaptureError
from attnviz.keys import token_table
from attnviz.maps import AttentionMaps
from attnviz.pipelines import AuffusionOutput, AuffusionPipeline
from attnviz.tracing import Trace
from attnviz.wording import short_repr

_OWN = {
    "prompt": "the edit has the two prompts",
    "num_images_per_prompt": "an edit is of one clip; make one for each seed",
    "callback_on_step_end": "the local blend is one; leave it out, or give blend=False",
    "return_dict": "the result is an EditedAudio",
}


@dataclass(frozen=True)
class EditedAudio:
    """A generation and its edit.

    Attributes
    ----------
    output : AuffusionOutput
        Output of the pipeline, first the source and then the edit.
    maps : AttentionMaps
        Maps of both: prompt 0 is the source, prompt 1 the target. The recorded attention includes injection and
        weights, so it may be negative.
    edit : PromptEdit
        The edit, with the effective settings.
    mask : numpy.ndarray or None
        Shape (rows, columns), bool: latent cells edited by the local blend in the last step, with the highest
        frequency in row 0; None without a blend.
    """

    output: AuffusionOutput
    maps: AttentionMaps
    edit: PromptEdit
    mask: np.ndarray | None = None

    __repr__ = short_repr

    @property
    def source_audio(self) -> np.ndarray:
        """Waveform of the source, shape (samples,)."""
        return _audios(self.output)[SOURCE]

    @property
    def audio(self) -> np.ndarray:
        """Edited waveform, shape (samples,)."""
        return _audios(self.output)[TARGET]


@public
def apply_edit(
    pipe: AuffusionPipeline,
    edit: PromptEdit,
    *,
    clip: InvertedClip | None = None,
    keep: Collection[Literal["step", "head"]] = (),
    generator: torch.Generator | None = None,
    latents: torch.Tensor | None = None,
    **generation: Any,
) -> EditedAudio:
    """Generate a prompt and its edit; used by `swap`, `refine` and `reweight`.

    Parameters
    ----------
    pipe, clip, **generation
        See `swap`.
    edit : PromptEdit
        The edit.
    keep : collection of {"step", "head"}
        Axes of the maps to keep.
    generator : torch.Generator, optional
        Random generator for the noise of both. By default, that of torch.
    latents : torch.Tensor, shape (1, channels, rows, columns), optional
        Initial noise of both.

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        See `swap`.
    """
    _check_pipeline(pipe)
    edit = edit.settled(pipe.recommended)
    _check_call(edit, generation)
    if clip is not None:
        if latents is not None:
            raise AttnVizError("latents= has no meaning beside clip=: an inverted clip begins with its own.")
        pipe, latents = clip.pipeline(pipe), clip.latents
        generation = clip.arguments(edit.source, generation)
    sampling = {
        name: generation.get(name) for name in ("num_inference_steps", "guidance_scale", "guidance_interval")
    }
    generation = {**generation, **pipe.recommended.settle(sampling, edit.kind)}
    tables = [token_table(pipe, prompt) for prompt in (edit.source, edit.target)]
    injection = edit.injection(*tables)
    blending = None if edit.local_blend is None else Blending(edit.local_blend, edit, tables)
    noise = _Noise(generator)
    traced = Trace(pipe, keep=keep, edit=injection)
    with held(traced):
        if blending is not None:
            generation = {**generation, "callback_on_step_end": blending.on(traced)}
        output = pipe(
            [edit.source, edit.target],
            generator=noise.generators,
            latents=_twice(latents),
            **generation,
        )
    noise.advance()
    return EditedAudio(output, traced.maps, edit, None if blending is None else blending.mask)


class _Noise:
    """Provide the same noise for both rows, initially and whenever the scheduler draws more."""

    def __init__(self, generator: torch.Generator | None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise AttnVizError(f"generator is a torch.Generator, of both prompts; got {type(generator).__name__}.")
        self._given = generator
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.generators = [generator.clone_state(), generator.clone_state()]

    def advance(self) -> None:
        """Advance the given generator as in a generation."""
        if self._given is not None:
            self._given.set_state(self.generators[SOURCE].get_state())


def _audios(output: AuffusionOutput) -> list[np.ndarray]:
    if output.audios is None:
        raise AttnVizError("There is no audio: the edit was made with output_type='latent'.")
    return output.audios


def _check_pipeline(pipe: Any) -> None:
    if not isinstance(pipe, AuffusionPipeline):
        raise CaptureError(
            f"{type(pipe).__name__} cannot be edited with: an AuffusionPipeline is expected. "
            "AuffusionPipeline.from_pipe(pipe) makes one of the same parts."
        )


def _check_call(edit: PromptEdit, generation: Mapping[str, Any]) -> None:
    for name, why in _OWN.items():
        if name in generation and (name != "callback_on_step_end" or edit.local_blend is not None):
            raise AttnVizError(f"{name}= cannot be given here: {why}.")


def _twice(latents: torch.Tensor | None) -> torch.Tensor | None:
    if latents is None:
        return None
    if not isinstance(latents, torch.Tensor) or latents.ndim != 4 or len(latents) != 1:
        got = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
        raise AttnVizError(f"latents is {got}; one noise (1, channels, rows, columns) is needed, of both prompts.")
    return latents.expand(2, -1, -1, -1)
