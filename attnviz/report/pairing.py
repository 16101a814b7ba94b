"""Which word or phrase of one prompt corresponds to which of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any


def pairs_of(items: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Pair the items of one run with those of another.

    Words are aligned in order: the same words with one another, and words that replace others one by one. A phrase
    goes with the phrase, or else the word, that holds the most of its words' counterparts; start and end tokens go
    with their own kind.

    Parameters
    ----------
    items, others : sequence of mapping
        ``"items"`` of two payloads: label, kind and span.

    Returns
    -------
    list of int or None
        For each item the index of its counterpart; None where there is none.

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
    """Choose the phrase with the most of some words and the fewest others; without one, the first word."""
    if not inside:
        return None
    scored = [
        (sum(_holds(phrase, others[word]) for word in inside), phrase["span"][0] - phrase["span"][1], number)
        for number, phrase in _of(others, "phrase")
    ]
    most = max(scored, default=(0, 0, 0))
    return most[2] if most[0] else inside[0]
