"""Select the phrases, words and special tokens of a prompt that the page shows, and the one shown first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.errors import EventsError, MapsError
from attnviz.events import with_spans
from attnviz.events.table import scorable
from attnviz.maps import AttentionMaps
from attnviz.text.content import FUNCTION_WORDS, content_runs
from attnviz.text.tokens import KINDS

Span = tuple[int, int]

MOST_PHRASES = 12
"""Maximum number of phrases found in a prompt, in addition to those given by events or by the user."""

_NO_WORDS = {
    kind: f"{kind} token" if kind in ("start", "end") else f"{kind} keys" for kind in KINDS if kind != "text"
}
_DISTINCT = 0.5  # fraction of the highest contrast over time from which a map is taken to show a sound


@dataclass(frozen=True)
class Item:
    """An item with a map: a phrase or word of the prompt (`span`), or all tokens of a kind."""

    label: str
    span: Span | None = None
    kind: str = "word"

    def read(self, maps: AttentionMaps, **how: Any) -> xr.DataArray:
        """Compute the heat map of the item."""
        if self.span is None:
            return maps.token_heatmap(self.kind, **how)
        return maps.heatmap(self.span, **how)


def items_of(maps: AttentionMaps, prompt_index: int, phrases: Sequence[Span] = ()) -> list[Item]:
    """Return the items of a prompt: words, phrases, and the kinds of keys that are no words, if they were stored.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index : int
    phrases : sequence of (int, int)
        Phrases in addition to those found by `phrases_of`. Single words and phrases that were not stored in full
        are omitted.

    Raises
    ------
    MapsError
        If no word was stored.
    """
    occurrences = maps.occurrences(prompt_index)
    words = [Item(word.label, word.span) for word in occurrences]
    if not words:
        raise MapsError("There is no word to show: none of the prompt's words was stored in full.")
    text = maps.prompts[prompt_index]
    spans = [word.span for word in occurrences]
    wanted = [span for span in phrases if span not in spans and _stored(span, text, spans)]
    found = dict.fromkeys([*wanted, *phrases_of(text, spans)])
    kinds_of = maps.tokens[prompt_index].rows
    kinds = set(kinds_of.loc[kinds_of["position"].isin(maps.positions), "kind"])
    return [
        *words,
        *(Item(" ".join(text[slice(*span)].split()), span, "phrase") for span in sorted(found)),
        *(Item(label, kind=kind) for kind, label in _NO_WORDS.items() if kind in kinds),
    ]


def phrases_of(prompt: str, words: Sequence[Span]) -> list[Span]:
    """Return the phrases of a prompt: runs of two or more content words (`attnviz.text.content`).

    Examples
    --------
    >>> prompt = "a dog barks, then heavy rain falls"
    >>> words = [(0, 1), (2, 5), (6, 11), (13, 17), (18, 23), (24, 28), (29, 34)]
    >>> [prompt[start:end] for start, end in phrases_of(prompt, words)]
    ['dog barks', 'heavy rain falls']
    """
    runs = content_runs(prompt, words)
    return [(run[0][0], run[-1][1]) for run in runs if len(run) > 1][:MOST_PHRASES]


def event_spans(events: pd.DataFrame | None, prompt: str) -> list[Span | None]:
    """Return the span in the prompt of each event of non-zero length, or None if it is missing or ambiguous."""
    if events is None:
        return []
    spans: list[Span | None] = []
    for number in np.flatnonzero(scorable(events).to_numpy()).tolist():
        try:
            found = with_spans(events.iloc[[number]], prompt)["span"].iloc[0]
        except EventsError:  # the prompt does not name the class, or names it twice
            found = None
        spans.append(None if found is None else (int(found[0]), int(found[1])))
    return spans


def first_item(
    items: Sequence[Item], named: Sequence[Span | None], curves: Sequence[np.ndarray], prompt: str
) -> int:
    """Return the index of the item shown first: the first phrase with a sound.

    If events name phrases, select the first of these in the prompt. Otherwise, select the first phrase, or content
    word outside phrases, with high contrast over time: the standard deviation of its activation, relative to the
    mean magnitude, is at least half of the maximum over items.

    Parameters
    ----------
    items : sequence of Item
    named : sequence of (int, int) or None
        Result of `event_spans`.
    curves : sequence of numpy.ndarray, shape (columns,)
        Activation of each item within the audio.
    prompt : str
    """
    spans = {item.span: number for number, item in enumerate(items) if item.span is not None}
    for span in sorted({span for span in named if span is not None}):
        if span in spans:
            return spans[span]
    phrases = [item.span for item in items if item.kind == "phrase" and item.span is not None]
    candidates = [
        number
        for number, item in enumerate(items)
        if item.span is not None
        and (item.kind == "phrase" or not _within(item.span, phrases))
        and prompt[slice(*item.span)].lower() not in FUNCTION_WORDS
    ] or [0]
    candidates.sort(key=lambda number: items[number].span or (0, 0))
    contrast = [_contrast(curves[number]) for number in candidates]
    return next(
        number for number, one in zip(candidates, contrast, strict=True) if one >= _DISTINCT * max(contrast)
    )


def _contrast(curve: np.ndarray) -> float:
    mean = float(np.abs(curve).mean()) if curve.size else 0.0
    return float(curve.std()) / mean if mean > 0 else 0.0


def _within(span: Span, phrases: Sequence[Span]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in phrases)


def _stored(span: Span, prompt: str, words: Sequence[Span]) -> bool:
    """Return whether all letters and digits of a span belong to stored words."""
    covered = {at for start, end in words for at in range(start, end)}
    return all(at in covered or not prompt[at].isalnum() for at in range(*span))
