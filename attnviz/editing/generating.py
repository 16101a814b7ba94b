"""An edit at work: the source and its edit, generated in one batch from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from attnviz.editing.alignment import Phrase
from attnviz.editing.blend import LocalBlend, blend_mask
from attnviz.editing.injection import SOURCE, TARGET, whole_calls
from attnviz.editing.inverting import InvertedClip
from attnviz.editing.prompt_edit import CROSS_REPLACE_STEPS, SELF_REPLACE_STEPS, PromptEdit, Steps
from attnviz.errors import AttnVizError, CaptureError
from attnviz.keys import kept_positions
from attnviz.maps import AttentionMaps
from attnviz.pipelines import AuffusionOutput, AuffusionPipeline
from attnviz.text import TokenTable, clip_token_table
from attnviz.tracing import Trace

_OWN = {
    "prompt": "the edit has the two prompts",
    "num_images_per_prompt": "an edit is of one clip; make one for each seed",
    "callback_on_step_end": "the local blend is one; leave it out, or the blend",
    "return_dict": "the result is an EditedAudio",
}


@dataclass(frozen=True)
class EditedAudio:
    """A generation and its edit.

    Attributes
    ----------
    output : AuffusionOutput
        What the pipeline gave, the source first and its edit second.
    maps : AttentionMaps
        Of both: prompt 0 is the source, prompt 1 the target. Attention is recorded as it is in effect, with what
        is injected and with its weights; so it may be negative.
    edit : PromptEdit
        The edit.
    mask : numpy.ndarray or None
        Shape (rows, columns), bool: latent cells that the local blend let be edited at the last step, the highest
        frequency in row 0; None without a blend.
    """

    output: AuffusionOutput
    maps: AttentionMaps
    edit: PromptEdit
    mask: np.ndarray | None = None

    @property
    def source_audio(self) -> np.ndarray:
        """The source's waveform, shape (samples,)."""
        return _audios(self.output)[SOURCE]

    @property
    def audio(self) -> np.ndarray:
        """The edited waveform, shape (samples,)."""
        return _audios(self.output)[TARGET]


def swap(
    pipe: AuffusionPipeline,
    source: str,
    target: str,
    *,
    weights: Mapping[Phrase, float] | None = None,
    cross_replace_steps: Steps = CROSS_REPLACE_STEPS,
    self_replace_steps: float = SELF_REPLACE_STEPS,
    blend: LocalBlend | None = None,
    clip: InvertedClip | None = None,
    **generation: Any,
) -> EditedAudio:
    """Put other words in place of some: prompt-to-prompt's word swap.

    The two prompts are generated in one batch from the same noise. For the first part of the steps the edit has
    the source's attention, each new word that of the one it takes the place of, so that it sounds when and where
    that did; afterwards it has its own.

    Parameters
    ----------
    pipe : AuffusionPipeline
        It stays as it is.
    source, target : str
        Prompts of equally many words, or such that every word of one has something in its place in the other. The
        words may have different numbers of tokens.
    weights : mapping of Phrase to float, optional
        Makes words of the target louder or softer, too; see `reweight`.
    cross_replace_steps : float or mapping
        Fraction of the steps with the source's cross-attention; or one for each of some words of the target, and
        under None that of all else. A word that stands there more than once is given as ``("dog", 1)``, counted
        from 0, or by its character span.
    self_replace_steps : float
        Fraction of the steps with the source's self-attention.
    blend : LocalBlend, optional
        Confines the edit to where some words are attended to.
    clip : InvertedClip, optional
        A real clip, out of `invert`, to be edited in place of a generated one; `source` is what it was inverted
        with.
    **generation
        What `AuffusionPipeline` is called with: ``num_inference_steps``, ``guidance_scale``, ``generator``,
        ``duration``, ...; and ``keep``, as for `attnviz.trace`.

    Returns
    -------
    EditedAudio

    Raises
    ------
    PromptError
        If the prompts cannot be aligned, or a word is not in its prompt.
    CaptureError
        If a layer's attention processor is not known, or the pipeline is being traced.
    AttnVizError
        On a weight, fraction or other argument that cannot be used; all before any model runs.

    Notes
    -----
    Source: Hertz et al., Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626).

    Differences from the original: the layers' own attention processors stay at work (an edit of attention that is
    linear in it is an edit of the values it weighs), and words of different token counts are found by their spans,
    for each text encoder. Where neither `cross_replace_steps` nor `self_replace_steps` holds, the calls are those
    of a plain generation of the two prompts.
    """
    edit = PromptEdit("swap", source, target, weights or {}, cross_replace_steps, self_replace_steps, blend)
    return apply_edit(pipe, edit, clip=clip, **generation)


def refine(
    pipe: AuffusionPipeline,
    source: str,
    target: str,
    *,
    weights: Mapping[Phrase, float] | None = None,
    cross_replace_steps: Steps = CROSS_REPLACE_STEPS,
    self_replace_steps: float = SELF_REPLACE_STEPS,
    blend: LocalBlend | None = None,
    clip: InvertedClip | None = None,
    **generation: Any,
) -> EditedAudio:
    """Add words to a prompt: prompt-to-prompt's refinement.

    As `swap`, but the words both prompts have keep the source's attention, and those that are added have theirs.

    Parameters
    ----------
    pipe, weights, cross_replace_steps, self_replace_steps, blend, clip, **generation
        As for `swap`.
    source, target : str
        A prompt, and the same prompt with words added anywhere.

    Returns
    -------
    EditedAudio

    Raises
    ------
    PromptError
        If the target lacks a word of the source, and as `swap`.
    CaptureError, AttnVizError
        As `swap`.

    Notes
    -----
    Source: Hertz et al. (arXiv 2208.01626). As in the original, attention no longer sums to 1 while it is
    injected.
    """
    edit = PromptEdit("refine", source, target, weights or {}, cross_replace_steps, self_replace_steps, blend)
    return apply_edit(pipe, edit, clip=clip, **generation)


def reweight(
    pipe: AuffusionPipeline,
    prompt: str,
    weights: Mapping[Phrase, float],
    *,
    cross_replace_steps: Steps = CROSS_REPLACE_STEPS,
    self_replace_steps: float = SELF_REPLACE_STEPS,
    blend: LocalBlend | None = None,
    clip: InvertedClip | None = None,
    **generation: Any,
) -> EditedAudio:
    """Make words of a prompt louder or softer: prompt-to-prompt's attention re-weighting.

    Parameters
    ----------
    pipe, cross_replace_steps, self_replace_steps, blend, clip, **generation
        As for `swap`.
    prompt : str
        The prompt.
    weights : mapping of Phrase to float
        Factor on the attention of each of some words, as long as attention is injected: 1 changes nothing, 0 takes
        it away, below 0 turns it round; the authors of the original go from -2 to 4 and beyond.

    Returns
    -------
    EditedAudio

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        As `swap`; and if no word is weighed.

    Notes
    -----
    Source: Hertz et al. (arXiv 2208.01626). As in the original, attention is not normalised again.
    """
    edit = PromptEdit.reweighting(
        prompt,
        weights,
        cross_replace_steps=cross_replace_steps,
        self_replace_steps=self_replace_steps,
        blend=blend,
    )
    return apply_edit(pipe, edit, clip=clip, **generation)


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
    """Generate a prompt and its edit; `swap`, `refine` and `reweight` say what and how.

    Parameters
    ----------
    pipe, clip, **generation
        As for `swap`.
    edit : PromptEdit
        The edit.
    keep : collection of {"step", "head"}
        Axes of the maps that are kept.
    generator : torch.Generator, optional
        Draws the noise of both; torch's own where left out.
    latents : torch.Tensor, shape (1, channels, rows, columns), optional
        Noise to begin with, of both.

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        As `swap`.
    """
    _check_call(pipe, edit, generation)
    if clip is not None:
        if latents is not None:
            raise AttnVizError("latents= has no meaning beside clip=: an inverted clip begins with its own.")
        pipe, latents = clip.pipeline(pipe), clip.latents
        generation = clip.arguments(edit.source, generation)
    tables = [_table(pipe, prompt) for prompt in (edit.source, edit.target)]
    injection = edit.injection(*tables)
    blending = None if edit.blend is None else _Blending(edit, tables)
    noise = _Noise(generator)
    with Trace(pipe, keep=keep, edit=injection) as traced:
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
    """The same noise for both rows, at the start and wherever a scheduler draws more."""

    def __init__(self, generator: torch.Generator | None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise AttnVizError(f"generator is a torch.Generator, of both prompts; got {type(generator).__name__}.")
        self._given = generator
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.generators = [generator.clone_state(), generator.clone_state()]

    def advance(self) -> None:
        """Leave the generator that was given as a generation leaves it."""
        if self._given is not None:
            self._given.set_state(self.generators[SOURCE].get_state())


class _Blending:
    """The local blend of one edit, as a callback of the pipeline's loop."""

    def __init__(self, edit: PromptEdit, tables: list[TokenTable]) -> None:
        positions = kept_positions(tables, "text")
        # Words without a token were refused with the edit, but for words that the blend alone names.
        self._columns = tuple(
            sorted({positions.index(int(key)) for span in spans for key in table.find(span)})
            for table, spans in zip(tables, edit.blend_spans, strict=True)
        )
        self._edit = edit
        self.mask: np.ndarray | None = None

    def on(self, traced: Trace) -> Callable[..., dict[str, Any]]:
        """Make the callback, on the maps of a trace."""
        blend = self._edit.blend
        if blend is None:
            raise AttnVizError("The edit has no blend.")

        def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents = tensors["latents"]
            if step >= whole_calls(blend.start, pipe.num_timesteps):
                size = latents.shape[-2], latents.shape[-1]
                mask = blend_mask(traced.so_far(), self._columns, size, blend.threshold)  # type: ignore[arg-type]
                self.mask = mask.numpy()
                tensors["latents"] = torch.where(mask.to(latents.device), latents, latents[SOURCE])
            return tensors

        return after_step


def _audios(output: AuffusionOutput) -> list[np.ndarray]:
    if output.audios is None:
        raise AttnVizError("There is no audio: the edit was made with output_type='latent'.")
    return output.audios


def _check_call(pipe: Any, edit: PromptEdit, generation: Mapping[str, Any]) -> None:
    if not isinstance(pipe, AuffusionPipeline):
        raise CaptureError(
            f"{type(pipe).__name__} cannot be edited with: an AuffusionPipeline is expected. "
            "AuffusionPipeline.from_pipe(pipe) makes one of the same parts."
        )
    for name, why in _OWN.items():
        if name in generation and (name != "callback_on_step_end" or edit.blend is not None):
            raise AttnVizError(f"{name}= cannot be given here: {why}.")


def _table(pipe: Any, prompt: str) -> TokenTable:
    if pipe.conditioner is not None:
        return pipe.conditioner.token_table(prompt, warn=False)
    return clip_token_table(pipe.tokenizer, prompt, warn=False)


def _twice(latents: torch.Tensor | None) -> torch.Tensor | None:
    if latents is None:
        return None
    if not isinstance(latents, torch.Tensor) or latents.ndim != 4 or len(latents) != 1:
        got = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
        raise AttnVizError(f"latents is {got}; one noise (1, channels, rows, columns) is needed, of both prompts.")
    return latents.expand(2, -1, -1, -1)
