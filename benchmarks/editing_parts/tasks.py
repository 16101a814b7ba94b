"""Editing tasks: prompts of a fold's scenes with a sound swapped, added or re-weighted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from harness.material import Prompt, prompts

from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import PromptError
from attnviz.scenes import CLASSES
from attnviz.text.sounds import PHRASES
from editing_parts.settings import Settings

Span = tuple[int, int]


@dataclass(frozen=True)
class Task:
    """An edit of a prompt, and the expected sounds.

    Attributes
    ----------
    edit : PromptEdit
        Edit with no settings other than its prompts.
    old, new : str or None
        Removed class and added class.
    kept : tuple of str
        Classes that should remain unchanged.
    old_span, new_span : (int, int) or None
        Their phrases in the source and in the target.
    """

    edit: PromptEdit
    old: str | None
    new: str | None
    kept: tuple[str, ...]
    old_span: Span | None
    new_span: Span | None


@dataclass(frozen=True)
class Weighing:
    """A prompt of two sounds, and the phrase to re-weight."""

    prompt: Prompt
    place: int


def pairs(settings: Settings) -> list[Prompt]:
    """Return captions of scenes of two sounds."""
    # Two of five of these name one sound.
    every = prompts(settings.esc10, settings.fold, settings.prompts * 2 + 4, settings.seed)
    return [prompt for prompt in every if len(prompt.classes) == 2][: settings.prompts]


def swaps(settings: Settings) -> Iterator[Task]:
    """Replace the phrase of one of two sounds with another class, alternately the first and the second."""
    for number, prompt in enumerate(pairs(settings)):
        rng = np.random.default_rng(settings.seed_of("swap", number))
        order = np.argsort([span[0] for span in prompt.spans])
        place = int(order[number % 2])
        span, old = prompt.spans[place], prompt.classes[place]
        new, phrase = _other_phrase(prompt, span, old, rng)
        target = prompt.text[: span[0]] + phrase + prompt.text[span[1] :]
        kept = tuple(name for name in prompt.classes if name != old)
        yield Task(PromptEdit("swap", prompt.text, target), old, new, kept, span, (span[0], span[0] + len(phrase)))


def refinements(settings: Settings) -> Iterator[Task]:
    """Use the first phrase of a text as source, and the whole text as refinement."""
    for prompt in pairs(settings):
        first, second = sorted(zip(prompt.spans, prompt.classes, strict=True))
        source = prompt.text[: first[0][1]]
        yield Task(PromptEdit("refine", source, prompt.text), None, second[1], (first[1],), None, second[0])


def weighings(settings: Settings) -> Iterator[Weighing]:
    """Re-weight one of two phrases, alternately."""
    for number, prompt in enumerate(pairs(settings)):
        yield Weighing(prompt, number % 2)


def other_class(classes: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    """Draw a class that is not in `classes`."""
    left = [name for name in CLASSES if name not in classes]
    return left[rng.integers(len(left))]


def _other_phrase(prompt: Prompt, span: Span, old: str, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a class and one of its phrases with the grammar of the old one, so that words can be aligned."""
    own = PHRASES[old]
    text = prompt.text[slice(*span)]
    form = "clauses" if text in own.clauses else "nouns"
    for index in rng.permutation(len(CLASSES)):
        name = CLASSES[index]
        if name in prompt.classes:
            continue
        phrases: tuple[str, ...] = getattr(PHRASES[name], form)
        for choice in sorted(phrases, key=lambda phrase: len(phrase.split()) != len(text.split())):
            target = prompt.text[: span[0]] + choice + prompt.text[span[1] :]
            try:
                PromptEdit("swap", prompt.text, target)
            except PromptError:
                continue
            return name, choice
    raise PromptError(f"No phrase can replace {text!r} in {prompt.text!r}.")
