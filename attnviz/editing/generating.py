"""Generate a source and its edit in one batch from the same noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch

from attnviz.arguments import public
from attnviz.capture import held
from attnviz.editing.blending import Blending
from attnviz.editing.edited import EditedAudio
from attnviz.editing.family_edits import edit_codes, edit_latents
from attnviz.editing.injection import SOURCE
from attnviz.editing.inverting import InvertedClip
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import AttnVizError, CaptureError
from attnviz.models.families import STABLE_DIFFUSION, Family, family_of, model_inside
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.models.pipelines.published import ModelWithProcessor
from attnviz.tracing.generation import check_no_processor
from attnviz.tracing.keys import token_table
from attnviz.tracing.trace import Trace

_OWN = {
    "prompt": "the edit has the two prompts",
    "num_images_per_prompt": "an edit is of one clip; make one for each seed",
    "return_dict": "the result is an EditedAudio",
}


@public
def apply_edit(
    pipe: Any,
    edit: PromptEdit,
    *,
    clip: InvertedClip | None = None,
    processor: object = None,
    family: Family | None = None,
    keep: Collection[Literal["step", "head"]] = (),
    generator: torch.Generator | None = None,
    latents: torch.Tensor | None = None,
    **generation: Any,
) -> EditedAudio:
    """Generate a prompt and its edit; used by `swap`, `refine` and `reweight`.

    Parameters
    ----------
    pipe, clip, processor, family, **generation
        See `swap`.
    edit : PromptEdit
        The edit.
    keep : collection of {"step", "head"}
        Axes of the maps to keep.
    generator : torch.Generator, optional
        Random generator for the noise of both. By default, that of torch.
    latents : torch.Tensor, optional
        Initial noise of both, with one row: (1, channels, rows, columns) for Auffusion.

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        See `swap`.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise AttnVizError(f"generator is a torch.Generator, of both prompts; got {type(generator).__name__}.")
    if isinstance(pipe, ModelWithProcessor):
        pipe, own = pipe
        processor = own if processor is None else processor
    model = model_inside(pipe)
    found = family_of(model) if family is None else family
    if found is None or found.codebooks is None:
        check_no_processor(model, processor)
    if found is None:
        return _edit_auffusion(pipe, edit, clip, keep, generator, latents, generation)
    if clip is not None:
        raise AttnVizError(
            f"clip= is not possible with {type(model).__name__}: a clip is inverted for an Auffusion pipeline. "
            "Leave it out to edit a generation."
        )
    if found.codebooks is not None:
        if latents is not None:
            raise AttnVizError(f"latents= has no meaning here: {found.name} writes codes, from no noise.")
        return edit_codes(model, found, edit, processor, keep, generator, generation)
    return edit_latents(pipe, model, found, edit, keep, generator, latents, generation)


def _edit_auffusion(
    pipe: Any,
    edit: PromptEdit,
    clip: InvertedClip | None,
    keep: Collection[Literal["step", "head"]],
    generator: torch.Generator | None,
    latents: torch.Tensor | None,
    generation: Mapping[str, Any],
) -> EditedAudio:
    _check_pipeline(pipe)
    edit = edit.settled(pipe.recommended)
    _check_call(generation)
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
    noise = _Noise(generator)
    traced = Trace(pipe, keep=keep, edit=edit.injection(*tables))
    blend = edit.local_blend
    blending = None if blend is None else Blending(blend, edit, traced, pipe.scheduler, STABLE_DIFFUSION)
    if blending is not None:
        blending.settle(tables)
    with held(traced), nullcontext() if blending is None else held(blending):
        output = pipe(
            [edit.source, edit.target],
            generator=noise.generators,
            latents=_twice(latents),
            **generation,
        )
    noise.advance()
    return EditedAudio(output, traced.maps, edit, None if blending is None else blending.mask, output.audios)


class _Noise:
    """Provide the same noise for both rows, initially and whenever the scheduler draws more."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._given = generator
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.generators = [generator.clone_state(), generator.clone_state()]

    def advance(self) -> None:
        """Advance the given generator as in a generation."""
        if self._given is not None:
            self._given.set_state(self.generators[SOURCE].get_state())


def _check_pipeline(pipe: Any) -> None:
    if not isinstance(pipe, AuffusionPipeline):
        raise CaptureError(
            f"{type(pipe).__name__} cannot be edited with: an AuffusionPipeline, or a model of one of "
            "attnviz.models.families, is expected. AuffusionPipeline.from_pipe(pipe) makes one of the same parts "
            "as a StableDiffusionPipeline; family= takes the record of a model of your own."
        )


def _check_call(generation: Mapping[str, Any]) -> None:
    for name, why in _OWN.items():
        if name in generation:
            raise AttnVizError(f"{name}= cannot be given here: {why}.")


def _twice(latents: torch.Tensor | None) -> torch.Tensor | None:
    if latents is None:
        return None
    if not isinstance(latents, torch.Tensor) or latents.ndim != 4 or len(latents) != 1:
        got = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
        raise AttnVizError(f"latents is {got}; one noise (1, channels, rows, columns) is needed, of both prompts.")
    return latents.expand(2, -1, -1, -1)
