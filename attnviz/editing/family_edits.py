"""Edit generations of other text-to-audio models, of latents or of codes, from what their families state."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from attnviz.capture import AttentionEdit, Changes, held
from attnviz.editing.blending import Blending
from attnviz.editing.edited import EditedAudio
from attnviz.editing.injection import MOST_SELF_POSITIONS
from attnviz.editing.noise import shared_noise
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import AttnVizError
from attnviz.models.families import Family
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.text import TokenTable
from attnviz.tracing.generation import GenerationTrace
from attnviz.tracing.trace import Trace

Keep = Collection[Literal["step", "head"]]


def edit_latents(
    pipe: Any,
    model: Any,
    family: Family,
    edit: PromptEdit,
    keep: Keep,
    generator: torch.Generator | None,
    latents: torch.Tensor | None,
    generation: Mapping[str, Any],
) -> EditedAudio:
    """Generate a source and its edit with a model that denoises latents.

    Parameters
    ----------
    pipe, model : object
        What the user passed, and the model of the family inside it.
    family, edit, keep, generator, latents, generation
        See `attnviz.editing.apply_edit`.

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        See `attnviz.editing.swap`.
    """
    edit = _of_family(edit, family).settled(RecommendedSettings())
    arguments = _arguments(pipe, model, family, generation, generator, latents)
    blending: Blending | None = None

    def begin(tables: Sequence[TokenTable]) -> AttentionEdit:
        if blending is not None:
            blending.settle(tables)
        # A model of time alone has one level, which may be longer than a picture's finest level of structure.
        most = MOST_SELF_POSITIONS if family.queries.has_freq else None
        return replace(edit.injection(*tables), most_self_positions=most)

    traced = Trace(model, keep=keep, edit=begin, family=family)
    if edit.local_blend is not None:
        scheduler = arguments.get(family.scheduler, getattr(model, family.scheduler, None))
        blending = Blending(edit.local_blend, edit, traced, scheduler, family)
    with ExitStack() as stack:
        if family.alone:
            stack.enter_context(held(_BothPrompts(model, family)))
        stack.enter_context(held(traced))
        if blending is not None:
            stack.enter_context(held(blending))
        stack.enter_context(shared_noise(generator, rows=1 if family.alone else 2))
        output = getattr(model, family.call)([edit.source, edit.target], **arguments)
    mask = None if blending is None else blending.mask
    made = getattr(output, "audios", None) if generation.get("output_type") != "latent" else None
    return EditedAudio(output, traced.maps, edit, mask, None if made is None else _waveforms(made))


def edit_codes(
    model: Any,
    family: Family,
    edit: PromptEdit,
    processor: Any,
    keep: Keep,
    generator: torch.Generator | None,
    generation: Mapping[str, Any],
) -> EditedAudio:
    """Generate a source and its edit with a model that writes codes, one position after the other.

    Both are written in one batch. At each position the edit gets the source's attention at the same position, and
    its codes are drawn with the random numbers of the source's.

    Parameters
    ----------
    model, family, edit, processor, keep, generator, generation
        See `attnviz.editing.apply_edit`.

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        See `attnviz.editing.swap`.

    Notes
    -----
    Source: prompt-to-prompt (arXiv 2208.01626), and its use with MusicGen in EditGen (Sioros et al., arXiv
    2507.11096).
    """
    edit = _of_codes(edit, family)
    for name in ("inputs", "input_ids", "attention_mask", "num_return_sequences"):
        if name in generation:
            raise AttnVizError(f"{name}= cannot be given here: the edit has the two prompts, one sequence each.")
    traced = GenerationTrace(
        model, family, processor, keep=keep, edit=lambda tables: edit.injection(*tables)
    )  # which checks the processor
    tokenizer = getattr(processor, "tokenizer", processor)
    words = tokenizer([edit.source, edit.target], padding=True, return_tensors="pt")
    given = {
        name: value.expand(2, *value.shape[1:])
        if isinstance(value, torch.Tensor) and value.shape[:1] == (1,)
        else value
        for name, value in generation.items()
    }
    with held(traced), shared_noise(generator):
        try:
            output = model.generate(
                input_ids=words["input_ids"].to(model.device),
                attention_mask=words["attention_mask"].to(model.device),
                **given,
            )
        except ValueError as error:  # of transformers: an unknown setting, or one of a wrong value
            raise AttnVizError(f"{type(model).__name__} refuses the settings: {error}") from error
    made = output if isinstance(output, torch.Tensor) else output.sequences
    return EditedAudio(output, traced.maps, edit, audios=_waveforms(made))


class _BothPrompts(Changes):
    """Make a model whose code handles one prompt encode two, in a guided call."""

    def __init__(self, model: Any, family: Family) -> None:
        super().__init__()
        self._model, self._family = model, family

    def _make(self) -> None:
        for name in self._family.encoders:
            self._replace(self._model, name, self._with_all_rows(getattr(self._model, name)))

    @staticmethod
    def _with_all_rows(encode: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(encode)
        def encoded(prompt: list[str], *args: Any, **kwargs: Any) -> Any:
            # Embeddings and their mask; one unconditional row comes before those of the prompts.
            return tuple(
                torch.cat([each[:1], each]) if len(each) == len(prompt) + 1 else each
                for each in encode(prompt, *args, **kwargs)
            )

        return encoded


def _of_family(edit: PromptEdit, family: Family) -> PromptEdit:
    """Return the edit without what the family's record does not allow."""
    if family.queries.has_freq or family.queries.are_keys or family.self_sites is not None:
        return edit
    if edit.self_replace_steps:
        raise AttnVizError(
            f"self_replace_steps={edit.self_replace_steps!r} is not possible: the family {family.name} states "
            "no self_sites, the modules in which the audio attends to itself. State them, or leave it out."
        )
    return replace(edit, self_replace_steps=0.0)


def _of_codes(edit: PromptEdit, family: Family) -> PromptEdit:
    """Return the edit with the steps that a model without denoising steps has: all or none."""
    if edit.blend:
        raise AttnVizError(
            f"blend={edit.blend!r} is not possible with {family.name}: it writes codes, each frame once, and "
            "every frame depends on those before it, so there are no latents in which parts of the source could "
            "stay. Leave it out."
        )
    cross = edit.cross_replace_steps
    cross = {None: 1.0, **cross} if isinstance(cross, Mapping) else 1.0 if cross is None else cross
    own = 0.0 if edit.self_replace_steps is None else edit.self_replace_steps
    parts = (
        {"cross_replace_steps": cross}
        if not isinstance(cross, Mapping)
        else {f"cross_replace_steps[{word!r}]": fraction for word, fraction in cross.items()}
    )
    for name, fraction in {**parts, "self_replace_steps": own}.items():
        if fraction not in (0, 1):
            raise AttnVizError(
                f"{name}={fraction!r} is a part of the denoising steps, and {family.name} has none: it writes "
                "each frame once. 1 injects the source's attention everywhere, 0 nowhere."
            )
    return replace(edit, cross_replace_steps=cross, self_replace_steps=own, blend=False)


def _arguments(
    pipe: Any,
    model: Any,
    family: Family,
    generation: Mapping[str, Any],
    generator: torch.Generator | None,
    latents: torch.Tensor | None,
) -> dict[str, Any]:
    """Return the arguments of the pipeline's call for two prompts from the same noise."""
    own = {
        "prompt": "the edit has the two prompts",
        family.waveforms: "an edit is of one clip; make one for each seed",
        "return_dict": "the result is an EditedAudio",
    }
    parameters = inspect.signature(getattr(model, family.call)).parameters
    for name in generation:
        if name in own:
            raise AttnVizError(f"{name}= cannot be given here: {own[name]}.")
        if name not in parameters:
            there = ", ".join(parameters)
            raise AttnVizError(f"{type(model).__name__} has no argument {name}; it has: {there}.")
    arguments = dict(generation)
    for name in family.each:
        arguments.setdefault(name, parameters[name].default)
    for name in {"negative_prompt", *family.each} & arguments.keys():
        if isinstance(arguments[name], str):
            arguments[name] = [arguments[name]] * 2
    if generator is not None and "generator" in parameters:
        arguments["generator"] = generator
    if latents is not None:
        if "latents" not in parameters:
            raise AttnVizError(f"{type(model).__name__} takes no latents; give a generator instead.")
        if not isinstance(latents, torch.Tensor) or len(latents) != 1:
            got = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
            raise AttnVizError(f"latents is {got}; one noise, with one row, is needed, of both prompts.")
        arguments["latents"] = latents.expand(2, *latents.shape[1:])
    if family.scheduler in parameters and family.scheduler not in arguments:
        # The published class around the model has the noise schedule that the model's method is given.
        scheduler = getattr(pipe, "scheduler", getattr(model, family.scheduler, None))
        if scheduler is None:
            raise AttnVizError(
                f"{type(model).__name__} is given its noise schedule in each call: pass {family.scheduler}=, or "
                "the published class around the model."
            )
        arguments[family.scheduler] = scheduler
    asked = None if family.seconds is None else family.seconds.asked
    if family.alone and asked is not None:
        length = arguments.get(asked, parameters[asked].default)
        arguments[asked] = torch.tensor([float(length)] * 2)
    return arguments


def _waveforms(made: Any) -> list[np.ndarray]:
    """Return one array a row, of (samples,) or (channels, samples); a single channel has no axis."""
    rows = [torch.as_tensor(row).detach().float().cpu().numpy() for row in made]
    return [row[0] if row.ndim == 2 and len(row) == 1 else row for row in rows]
