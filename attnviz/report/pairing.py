"""Match the words and phrases of two prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any


def pairs_of(items: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Match the items of one run to those of another.

    Words are aligned in order: identical words match each other, and replaced words match one by one. A phrase
    matches the phrase, or otherwise the word, that contains most of the counterparts of its words. Start and end
    tokens match their own kind.

    Parameters
    ----------
    items, others : sequence of mapping
        ``"items"`` of two payloads: label, kind and span.

    Returns
    -------
    list of int or None
        Index of the counterpart of each item, or None.

    Examples
    --------
    >>> def words(prompt):
    ...     starts = [prompt.index(word) for word in prompt.split()]
    ...     return [{"label": w, "kind": "word", "span": [s, s + len(w)]} for w, s in zip(prompt.split(), starts)]
    >>> pairs_of(words("dog barks then rain"), words("rooster crows then heavy rain"))
    [0, 1, 2, 4]
    """
    words, counterparts = _of(items, "word"), _of(others, "word")
    paired: dict[int, int] = {}
    names, other_names = ([at["label"].casefold() for _, at in some] for some in (words, counterparts))
    for kind, i, stop, j, end in SequenceMatcher(a=names, b=other_names, autojunk=False).get_opcodes():
        if kind in ("equal", "replace"):
            paired |= {words[i + step][0]: counterparts[j + step][0] for step in range(min(stop - i, end - j))}
    for number, phrase in _of(items, "phrase"):
        inside = [paired[word] for word, one in words if word in paired and _holds(phrase, one)]
        best = _best(inside, others)
        if best is not None:
            paired[number] = best
    kinds = {one["kind"]: number for number, one in enumerate(others)}
    paired |= {
        number: kinds[one["kind"]]
        for number, one in enumerate(items)
        if one["span"] is None and one["kind"] in kinds
    }
    return [paired.get(number) for number in range(len(items))]


def _of(items: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[int, Mapping[str, Any]]]:
    return [(number, one) for number, one in enumerate(items) if one["kind"] == kind]


def _holds(phrase: Mapping[str, Any], word: Mapping[str, Any]) -> bool:
    return bool(phrase["span"][0] <= word["span"][0] and word["span"][1] <= phrase["span"][1])


def _best(inside: Sequence[int], others: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the phrase that contains most of the words and fewest others, or the first word if there is none."""
    if not inside:
        return None
    scored = [
        (sum(_holds(phrase, others[word]) for word in inside), phrase["span"][0] - phrase["span"][1], number)
        for number, phrase in _of(others, "phrase")
    ]
    most = max(scored, default=(0, 0, 0))
    return most[2] if most[0] else inside[0]
