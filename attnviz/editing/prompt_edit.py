"""Definition of a prompt edit: two prompts, the alignment of their words, and the steps that inject attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import torch

from attnviz.arguments import public
from attnviz.editing.alignment import Pair, Phrase, Span, align_refine, align_swap, key_map, phrase_span
from attnviz.editing.blend import LocalBlend
from attnviz.editing.injection import Injection
from attnviz.errors import AttnVizError, PromptError, warn
from attnviz.models.pipelines import inputs
from attnviz.models.pipelines.recommended import AUTHORS, RecommendedSettings
from attnviz.text import TokenTable

Kind = Literal["swap", "refine", "reweight"]
Steps = float | Mapping[Phrase | None, float]
"""A fraction of the steps, or one per word, with that of all other keys under None."""

_DIFFERENT = {
    "swap": "Write another word in place of one of them, for example 'a cat barks' for 'a dog barks'.",
    "refine": "Add a word to the target, for example 'a big dog barks' for 'a dog barks'.",
    "reweight": "Give one or more words a weight, for example 2 for 'rain'.",
}


@public
@dataclass(frozen=True)
class PromptEdit:
    """An edit of a prompt; everything that needs no model is checked on creation.

    Attributes
    ----------
    kind : {"swap", "refine", "reweight"}
        Whether the target replaces words, adds words, or has the same words.
    source, target : str
        The prompts.
    weights : mapping of Phrase to float
        Factor on the attention of words of the target, while attention is injected. May be negative.
    cross_replace_steps : float or mapping
        Fraction of the steps, from the first, at which the target has the source's cross-attention; or one
        fraction per word of the target, with that of all other words under the key None. None, or without that
        key: the checkpoint's recommendation for this kind of edit, or prompt-to-prompt's 0.8.
    self_replace_steps : float, optional
        The same for self-attention; fallback: 0.4.
    blend : LocalBlend or bool, optional
        Restricts the edit. True: to the edited words; False: no blend; None: the checkpoint's
        recommendation, or no blend.

    Raises
    ------
    PromptError
        If the prompts cannot be aligned, a word is not in its prompt, or the prompts are the same and no word
        has a weight.
    AttnVizError
        If a weight is not finite, or a fraction is not in [0, 1].
    """

    kind: Kind
    source: str
    target: str
    weights: Mapping[Phrase, float] = field(default_factory=dict)
    cross_replace_steps: Steps | None = None
    self_replace_steps: float | None = None
    blend: LocalBlend | bool | None = None

    def __post_init__(self) -> None:
        inputs.check_prompts([self.source, self.target])
        _ = self.pairs, self.weighed, self.fractions, self.blend_spans
        if self.source.split() == self.target.split() and not self.weights:
            raise PromptError(
                f"Source and target of the edit are both {self.source!r}, so it changes no word. "
                f"{_DIFFERENT[self.kind]}"
            )
        if self.self_replace_steps is not None:
            check_fraction("self_replace_steps", self.self_replace_steps)

    @classmethod
    @public
    def reweighting(cls, prompt: str, weights: Mapping[Phrase, float], **settings: Any) -> Self:
        """Make words of a prompt louder or softer.

        Raises
        ------
        AttnVizError
            If no weight is given, or as for the class.
        """
        if not weights:
            raise AttnVizError(
                "No word has a weight: give one or more words with a factor, for example 2 for 'rain'."
            )
        return cls("reweight", prompt, prompt, weights, **settings)

    @public
    def settled(self, recommended: RecommendedSettings) -> Self:
        """Return the edit with missing values taken from a checkpoint's recommendations."""
        cross, own = self.cross_replace_steps, self.self_replace_steps
        every = recommended.value("cross_replace_steps", self.kind)
        if cross is None:
            cross = every
        elif isinstance(cross, Mapping):
            cross = {None: every, **cross}
        return replace(
            self,
            cross_replace_steps=cross,
            self_replace_steps=recommended.value("self_replace_steps", self.kind) if own is None else own,
            blend=self._settled_blend(recommended) or False,
        )

    def _settled_blend(self, recommended: RecommendedSettings) -> LocalBlend | None:
        threshold, start = (recommended.value(name, self.kind) for name in ("blend_threshold", "blend_start"))
        if self.blend is None:
            return None if threshold is None else LocalBlend(threshold=threshold, start=start)
        blend = LocalBlend() if self.blend is True else self.blend
        return blend.settled(threshold, start) if blend else None

    @property
    def local_blend(self) -> LocalBlend | None:
        """The requested local blend; None without one, or if it is left to the checkpoint."""
        if isinstance(self.blend, LocalBlend):
            return self.blend
        return LocalBlend() if self.blend is True else None

    @property
    def pairs(self) -> list[Pair]:
        """Aligned parts of the two prompts, in order."""
        align = {"swap": align_swap, "refine": align_refine, "reweight": align_refine}
        if self.kind not in align:
            raise AttnVizError(f"kind={self.kind!r} is unknown; known: {', '.join(align)}.")
        return align[self.kind](self.source, self.target)

    @property
    def fractions(self) -> tuple[float, dict[Span, float]]:
        """Fraction of the steps with the source's cross-attention: of most keys, and of spans of the target."""
        usual = AUTHORS[self.kind]["cross_replace_steps"]
        steps = usual if self.cross_replace_steps is None else self.cross_replace_steps
        if not isinstance(steps, Mapping):
            return check_fraction("cross_replace_steps", steps), {}
        every = check_fraction("cross_replace_steps[None]", steps.get(None, usual))
        return every, {
            phrase_span(self.target, phrase): check_fraction(f"cross_replace_steps[{phrase!r}]", fraction)
            for phrase, fraction in steps.items()
            if phrase is not None
        }

    @property
    def changed(self) -> tuple[list[Span], list[Span]]:
        """Spans of the edited words of source and target: those that differ or have a weight."""
        other = [pair for pair in self.pairs if not pair.same]
        source = [pair.source for pair in other if pair.source]
        target = [pair.target for pair in other if pair.target] + list(self.weighed)
        if self.source == self.target:
            source += list(self.weighed)
        return source, target

    @property
    def blend_spans(self) -> tuple[list[Span], list[Span]]:
        """Spans of the words that the blend is restricted to, of source and target; empty without a blend."""
        blend = self.local_blend
        if blend is None:
            return [], []
        if not blend.source and not blend.target:
            return self.changed
        return _spans(self.source, blend.source), _spans(self.target, blend.target)

    @public
    def injection(self, source: TokenTable, target: TokenTable) -> Injection:
        """Convert words to key positions.

        Parameters
        ----------
        source, target : TokenTable
            Token tables of the two prompts.

        Raises
        ------
        PromptError
            If a word with a weight, a fraction or a change has no token, because the prompt was cut off; or if the
            prompts have the same tokens and no word has a weight.

        Warns
        -----
        AttnVizWarning
            If the prompts have the same tokens and all weights are 1.
        """
        for table, spans in zip((source, target), self.changed, strict=True):
            for span in spans:
                table.find(span)
        self._check_tokens(source, target)
        every, some = self.fractions
        weights, fractions = torch.ones(len(target)), torch.full((len(target),), every, dtype=torch.float64)
        for span, fraction in some.items():
            fractions[target.find(span)] = fraction
        for span, weight in self.weighed.items():
            weights[target.find(span)] = weight
        keys = key_map(source, target, self.pairs)
        return Injection(keys, weights, fractions, self._self_fraction, self.record)

    def _check_tokens(self, source: TokenTable, target: TokenTable) -> None:
        """Reject prompts that differ for a reader and not for the model, such as in capitals."""
        if not np.array_equal(source.rows["token_id"], target.rows["token_id"]):
            return
        if not self.weights:
            raise PromptError(
                f"{self.source!r} and {self.target!r} have the same tokens, so the edit changes nothing. "
                f"{_DIFFERENT[self.kind]}"
            )
        if all(weight == 1 for weight in self.weights.values()):
            warn("All weights of the edit are 1, which changes nothing: the result repeats the source.")

    @property
    def record(self) -> dict[str, Any]:
        """Entries for ``run.json`` and the maps' provenance."""
        every, some = self.fractions
        words, blend = self.target, self.local_blend
        return {
            "edit": self.kind,
            "source": self.source,
            "target": self.target,
            "weights": {_name(words, span): weight for span, weight in self.weighed.items()},
            "cross_replace_steps": {"": every} | {_name(words, span): value for span, value in some.items()},
            "self_replace_steps": self._self_fraction,
            "blend": None
            if blend is None
            else {
                "source": [_name(self.source, span) for span in self.blend_spans[0]],
                "target": [_name(self.target, span) for span in self.blend_spans[1]],
                "threshold": blend.threshold,
                "start": blend.start,
            },
        }

    @property
    def _self_fraction(self) -> float:
        own = self.self_replace_steps
        return float(AUTHORS[self.kind]["self_replace_steps"] if own is None else own)

    @property
    def weighed(self) -> dict[Span, float]:
        """Factor on each span of the target with a weight."""
        for phrase, weight in self.weights.items():
            if not isinstance(weight, Real) or isinstance(weight, bool) or not math.isfinite(weight):
                raise AttnVizError(
                    f"The weight {weight!r} of {phrase!r} is not a finite number; 1 leaves a word as it is, 0 "
                    "removes its attention, and typical values are -2 to 4."
                )
        return {phrase_span(self.target, phrase): float(weight) for phrase, weight in self.weights.items()}


def check_fraction(name: str, fraction: Any) -> float:
    """Raise unless a value is a fraction of the steps.

    Raises
    ------
    AttnVizError
        With the value and the range.
    """
    number = isinstance(fraction, Real) and not isinstance(fraction, bool)
    if not number or not 0 <= fraction <= 1:  # also rejects NaN
        raise AttnVizError(
            f"{name}={fraction!r} is not a fraction of the steps, in [0, 1]. Was it given in steps or percent?"
        )
    return float(fraction)


def _spans(prompt: str, phrases: Sequence[Phrase]) -> list[Span]:
    if isinstance(phrases, str):
        raise PromptError(f"The blend's words are a list; {phrases!r} is text. Write [{phrases!r}].")
    return [phrase_span(prompt, phrase) for phrase in phrases]


def _name(prompt: str, span: Span) -> str:
    return f"{prompt[slice(*span)]} [{span[0]}:{span[1]}]"
