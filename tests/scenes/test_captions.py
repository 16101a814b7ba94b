from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from attnviz.scenes import CLASSES, PHRASES
from attnviz.scenes.captions import Heard, write_caption

ORDER = ("then", "followed by", "before")


def claims_hold(caption, spans, sounds) -> bool:
    """An oracle of its own: reads the connectives between the phrases, and checks what they claim."""
    named = sorted(zip(spans, sounds, strict=True), key=lambda pair: pair[0])
    group_start = 0
    for position, ((left, _), (right, heard)) in enumerate(pairwise(named), start=1):
        words = caption[left[1] : right[0]]
        if any(word in words for word in ORDER):
            earlier = max(sound.last for _, sound in named[:position])
            later = min(sound.first for _, sound in named[position:])
            if earlier > later:
                return False
            group_start = position
        elif "while" in words:
            for _, other in named[group_start:position]:
                shared = min(other.last, heard.last) - max(other.first, heard.first)
                if shared < 0.5 * min(other.last - other.first, heard.last - heard.first):
                    return False
    return True


def random_sounds(rng):
    count = int(rng.integers(1, 5))
    names = rng.permutation(CLASSES)[:count]
    if rng.random() < 0.5:
        edges = np.sort(rng.uniform(0, 10, 2 * count)).reshape(-1, 2)
    else:
        first = rng.uniform(0, 6, count)
        edges = np.stack([first, first + rng.uniform(0.1, 4, count)], axis=1)
    return [Heard(str(name), float(a), float(b)) for name, (a, b) in zip(names, edges, strict=True)]


def test_captions_are_true_and_their_spans_are_phrases():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(1500):
        sounds = random_sounds(rng)
        caption, spans = write_caption(sounds, rng)
        assert claims_hold(caption, spans, sounds), (caption, sounds)
        for (start, end), heard in zip(spans, sounds, strict=True):
            phrases = PHRASES[heard.sound]
            assert caption[start:end] in phrases.clauses + phrases.nouns
        rest = caption
        for start, end in sorted(spans, reverse=True):
            rest = rest[:start] + "|" + rest[end:]
        seen |= set(re.split(r"\|", rest))
    assert {", then ", " then ", ", followed by ", " followed by ", " before ", " while ", " and ", ", "} <= seen
    allowed = {", and then ", "", ".", "the sound of ", "we hear ", "a recording of "}
    assert seen <= allowed | {", then ", " then ", ", followed by ", " followed by ", " before ", " while "} | {
        " and ",
        ", ",
    }


@pytest.mark.parametrize(
    ("caption", "a", "b", "true"),
    [
        ("a dog barks, then rain falls", (0, 1), (2, 3), True),
        ("a dog barks, then rain falls", (2, 3), (0, 1), False),
        ("a dog barks before rain falls", (0, 2.1), (2, 3), False),
        ("a dog barks while rain falls", (0, 2), (1, 3), True),
        ("a dog barks while rain falls", (0, 2), (1.9, 3), False),
        ("a dog barks and rain falls", (2, 3), (0, 1), True),
    ],
)
def test_the_oracle_sees_lies(caption, a, b, true):
    second = caption.index("rain")
    spans = [(0, 11), (second, second + 10)]
    assert claims_hold(caption, spans, [Heard("Dog bark", *a), Heard("Rain", *b)]) is true


def test_order_is_told_when_it_can_be():
    rng = np.random.default_rng(1)
    sounds = [Heard("Rain", 0, 1), Heard("Dog bark", 1, 2)]
    captions = [write_caption(sounds, rng)[0] for _ in range(500)]
    told = [any(word in caption for word in ORDER) for caption in captions]
    assert 0.75 < np.mean(told) < 0.95
    together = [Heard("Rain", 0, 2), Heard("Dog bark", 0.5, 2.5)]
    captions = [write_caption(together, rng)[0] for _ in range(500)]
    assert not any(word in caption for caption in captions for word in ORDER)
    assert 0.5 < np.mean(["while" in caption for caption in captions]) < 0.7
    assert 0.4 < np.mean([min(c.find("rain"), 99) < c.find("dog") for c in captions]) < 0.75


def test_grammar_after_connectives():
    rng = np.random.default_rng(2)
    for _ in range(1000):
        sounds = random_sounds(rng)
        caption, spans = write_caption(sounds, rng)
        for (start, end), heard in zip(spans, sounds, strict=True):
            before = caption[:start]
            if before.endswith(("followed by ", "the sound of ", "a recording of ", "we hear ")):
                assert caption[start:end] in PHRASES[heard.sound].nouns, caption
            if before.endswith(("while ", "before ")):
                assert caption[start:end] in PHRASES[heard.sound].clauses, caption


def test_no_phrase_is_within_one_of_another_class():
    assert tuple(PHRASES) == CLASSES
    phrases = [(name, text) for name, both in PHRASES.items() for text in both.clauses + both.nouns]
    for name, text in phrases:
        for other, longer in phrases:
            assert name == other or not re.search(rf"\b{re.escape(text)}\b", longer), (text, longer)
        assert not any(re.search(rf"\b{word}\b", text) for word in ("and", "while", "before", "then", "followed"))
