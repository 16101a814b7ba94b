"""The three edits of prompt-to-prompt: replace words, add words, and re-weight words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnviz.arguments import public
from attnviz.editing.alignment import Phrase
from attnviz.editing.blend import LocalBlend
from attnviz.editing.edited import EditedAudio
from attnviz.editing.generating import apply_edit
from attnviz.editing.inverting import InvertedClip
from attnviz.editing.prompt_edit import PromptEdit, Steps


@public
def swap(
    pipe: Any,
    source: str,
    target: str,
    *,
    weights: Mapping[Phrase, float] | None = None,
    cross_replace_steps: Steps | None = None,
    self_replace_steps: float | None = None,
    blend: LocalBlend | bool | None = None,
    clip: InvertedClip | None = None,
    **generation: Any,
) -> EditedAudio:
    """Replace words of a prompt: prompt-to-prompt's word swap.

    The two prompts are generated in one batch from the same noise. In the first part of the steps the edit uses
    the source's attention: each new word has the attention of the word it replaces, and so its timing. Afterwards
    the edit uses its own attention.

    Parameters
    ----------
    pipe : AuffusionPipeline, or a model of attnviz.models.families
        The pipeline; it is not changed. AudioLDM2, Stable Audio, Stable Audio 3, LongCat-AudioDiT, ACE-Step,
        MusicGen and MusicGen Melody (with ``processor``), Tango and TangoFlux, and a model of your own (with
        ``family``).
    source, target : str
        Prompts of equally many words, or such that every word of one has something in its place in the other. The
        words may have different numbers of tokens.
    weights : mapping of Phrase to float, optional
        Factors that also make words of the target louder or softer; see `reweight`.
    cross_replace_steps : float or mapping, optional
        Fraction of the steps with the source's cross-attention; or one per word of the target, with that
        of all other words under None. A repeated word is given as ``("dog", 1)``, counted from 0, or by its
        character span. None: the checkpoint's recommendation for this edit (``pipe.recommended``), or 0.8 as in
        prompt-to-prompt. MusicGen has no such steps: 1, the default, or 0.
    self_replace_steps : float, optional
        Fraction of the steps with the source's self-attention. None: the recommendation, or 0.4. For MusicGen, 0,
        the default, or 1.
    blend : LocalBlend or bool, optional
        Restricts the edit to where some words have attention. True: the edited words; False: no blend; None: the
        recommendation, or no blend. Not for MusicGen, whose frames are written once.
    clip : InvertedClip, optional
        A real clip from `invert`, edited instead of a generated one; `source` must be the prompt of the
        inversion. For Auffusion pipelines.
    **generation
        Arguments of the pipeline (of ``generate`` for MusicGen): ``num_inference_steps``, ``guidance_scale``,
        ``generator``, ``duration``, ...; and ``keep``, ``processor`` and ``family``, as for `attnviz.trace`.
        Default steps and guidance of an Auffusion pipeline are the checkpoint's recommendation for this edit, or
        50 steps at 7.5; those of another are its own. ``generator`` works for every model.

    Returns
    -------
    EditedAudio

    Raises
    ------
    PromptError
        If the prompts cannot be aligned, or a word is not in its prompt.
    CaptureError
        If a layer's attention processor is unknown, or the pipeline is already traced or of no family.
    AttnVizError
        If an argument has no meaning for the model (a clip or a blend for MusicGen), or a weight, fraction or
        other argument is invalid. Everything is checked before any denoiser runs.

    Notes
    -----
    Source: Hertz et al., Prompt-to-Prompt Image Editing with Cross Attention Control (arXiv 2208.01626).

    Differences from the original: the layers' own attention processors stay at work, and the output of the
    attention kernel becomes the edited probabilities times the values; words of different token counts are found
    by their spans, for each text encoder. Where neither `cross_replace_steps` nor `self_replace_steps` holds,
    the calls are those of a plain generation of the two prompts. ``docs/models.md`` says what an edit is in each
    model.
    """
    edit = PromptEdit("swap", source, target, weights or {}, cross_replace_steps, self_replace_steps, blend)
    return apply_edit(pipe, edit, clip=clip, **generation)


@public
def refine(
    pipe: Any,
    source: str,
    target: str,
    *,
    weights: Mapping[Phrase, float] | None = None,
    cross_replace_steps: Steps | None = None,
    self_replace_steps: float | None = None,
    blend: LocalBlend | bool | None = None,
    clip: InvertedClip | None = None,
    **generation: Any,
) -> EditedAudio:
    """Add words to a prompt: prompt-to-prompt's refinement.

    Like `swap`, but words of both prompts use the attention of the source, and added words use their own.

    Parameters
    ----------
    pipe, weights, cross_replace_steps, self_replace_steps, blend, clip, **generation
        See `swap`.
    source, target : str
        A prompt, and the same prompt with words added anywhere.

    Returns
    -------
    EditedAudio

    Raises
    ------
    PromptError
        If the target lacks a word of the source. See also `swap`.
    CaptureError, AttnVizError
        See `swap`.

    Notes
    -----
    Source: Hertz et al. (arXiv 2208.01626). As in the original, attention does not sum to 1 while it is injected.
    """
    edit = PromptEdit("refine", source, target, weights or {}, cross_replace_steps, self_replace_steps, blend)
    return apply_edit(pipe, edit, clip=clip, **generation)


@public
def reweight(
    pipe: Any,
    prompt: str,
    weights: Mapping[Phrase, float],
    *,
    cross_replace_steps: Steps | None = None,
    self_replace_steps: float | None = None,
    blend: LocalBlend | bool | None = None,
    clip: InvertedClip | None = None,
    **generation: Any,
) -> EditedAudio:
    """Make words of a prompt louder or softer by prompt-to-prompt's attention re-weighting.

    Parameters
    ----------
    pipe, cross_replace_steps, self_replace_steps, blend, clip, **generation
        See `swap`.
    prompt : str
        The prompt.
    weights : mapping of Phrase to float
        Factor on the attention of each of these words while attention is injected: 1 changes nothing, 0 removes
        it, and negative factors invert it. The authors use values from -2 to 4 and beyond.

    Returns
    -------
    EditedAudio

    Raises
    ------
    PromptError, CaptureError, AttnVizError
        See `swap`. Also if no word has a weight.

    Notes
    -----
    Source: Hertz et al. (arXiv 2208.01626). As in the original, attention is not renormalised.
    """
    edit = PromptEdit.reweighting(
        prompt,
        weights,
        cross_replace_steps=cross_replace_steps,
        self_replace_steps=self_replace_steps,
        blend=blend,
    )
    return apply_edit(pipe, edit, clip=clip, **generation)
