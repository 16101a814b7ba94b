"""Words and phrases of a prompt, without a tokenizer."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attnviz.text.words import find_phrase, fold, is_blank, split_words

PROMPTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aAbB1  '-,./_=\"é\u0301\u0338≠\u0387\u1fef🐕\u200dß狗"),
    ),
    max_size=40,
)


def texts(prompt):
    return [word.text for word in split_words(prompt)]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a dog barks, then rain falls.", ["a", "dog", "barks", "then", "rain", "falls"]),
        ("don't stop: the dog's “half-open” door", ["don't", "stop", "the", "dog's", "half-open", "door"]),
        ("<script>alert('x')</script>", ["script", "alert", "x", "script"]),
        ("dog,rain,thunder", ["dog", "rain", "thunder"]),
        ("barks...rain", ["barks", "rain"]),
        ("rain/wind", ["rain", "wind"]),
        ("dog—cat\u2013bird…frog_toad→newt", ["dog", "cat", "bird", "frog", "toad", "newt"]),
        ("a dog--cat, rock-'n'-roll 'n'", ["a", "dog", "cat", "rock", "n", "roll", "n"]),
        ("rock'n'roll half\u2010open don\u2019t col\u00b7lecció", ["rock'n'roll", "half\u2010open", "don\u2019t",
                                                                  "col\u00b7lecció"]),
        ("3,000 Hz,5.1 24/7 12:30,4", ["3,000", "Hz", "5.1", "24/7", "12:30,4"]),
        ("£5-€6", ["5", "6"]),
        ("  two\tspaces \n", ["two", "spaces"]),
        ("dog -- cat & bird ... !", ["dog", "cat", "bird"]),
        ("🐕 barks 👨\u200d👩\u200d👧!", ["🐕", "barks", "👨\u200d👩\u200d👧"]),
        ("狗叫、然后下雨", ["狗叫", "然后下雨"]),
        ("Cafe\u0301 CAFÉ", ["Cafe\u0301", "CAFÉ"]),
        ("\u200bdog\u200b $5 `x`", ["dog", "5", "x"]),
        ("!!!", []),
    ],
)  # fmt: skip
def test_what_a_word_is(prompt, words):
    assert texts(prompt) == words


def test_occurrences_ignore_case_and_accent_composition():
    words = split_words("Café cafe\u0301 CAFÉ cafe")
    assert [word.occurrence for word in words] == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("prompt", "phrase", "spans"),
    [
        ("a dog barks", "dog barks", [(2, 11)]),
        ("a dog\t barks", " dog  barks. ", [(2, 12)]),
        ("a dog and another Dog", "DOG", [(2, 5), (18, 21)]),
        ("a hotdog", "dog", []),
        ("the dog's dog", "dog", [(10, 13)]),
        ("the dog's cat", "dog", [(4, 7)]),
        ("half-open", "open", [(5, 9)]),
        ("狗叫、下雨", "叫", [(1, 2)]),
        ("cats & dogs", "&", [(5, 6)]),
        ("Straße STRASSE", "strasse", [(0, 6), (7, 14)]),
        ("Straße", "stras", []),
        ("cafe\u0301", "café", [(0, 5)]),
        ("cafe\u0301", "cafe", []),
        ("café", "cafe", []),
        ("dog dog dog", "dog dog", [(0, 7), (4, 11)]),
        ("👨\u200d👩 x", "👨", []),
        ("👨\u200d👩 x", "👩", []),
        ("dog", "", []),
        ("dog", "  ", []),
        ("rain falls", "rain fall", []),
        ("dog,rain,thunder", "rain", [(4, 8)]),
        ("dog,rain,thunder", "dog,rain", [(0, 8)]),
        ("U.S.A. siren", "U.S.A.", [(0, 5)]),
        ("'\u0301a", "\u0301a", [(1, 3)]),
    ],
)
def test_where_a_phrase_is(prompt, phrase, spans):
    assert find_phrase(prompt, phrase) == spans


@given(PROMPTS)
@example("ßs ss \u017fs")
@example("'\u0301")
@example("İi̇")
def test_every_word_is_found_at_its_occurrence(prompt):
    for word in split_words(prompt):
        assert prompt[word.start : word.end] == word.text
        assert find_phrase(prompt, word.text)[word.occurrence] == (word.start, word.end)


@given(PROMPTS)
def test_words_hold_every_letter_digit_and_emoji_and_no_white_space(prompt):
    inside = set()
    for word in split_words(prompt):
        assert not any(character.isspace() for character in word.text)
        inside |= set(range(word.start, word.end))
    for i, character in enumerate(prompt):
        if unicodedata.category(character) in ("Lu", "Ll", "Lo", "Nd", "So", "Mn") and not character.isspace():
            assert i in inside


MARKS = st.text(st.sampled_from(',;:!?./|&+_()[]"“”…—\u2013、。→'), min_size=1, max_size=3)
BARE = st.from_regex("[a-zé狗🐕]+(?:['\u2019-][a-z]+)?", fullmatch=True)


@given(st.lists(st.tuples(MARKS, BARE), min_size=1), MARKS)
def test_marks_part_words_as_spaces_do(parts, last):
    """Which mark stands between two words changes nothing: each is where it was written, as it was written."""
    prompt, spans = "", []
    for marks, word in parts:
        prompt += marks
        spans.append((len(prompt), len(prompt) + len(word)))
        prompt += word
    found = split_words(prompt + last)
    assert [(word.start, word.end) for word in found] == spans
    spaced = " ".join(word for _, word in parts)
    assert [(word.text, word.occurrence) for word in found] == [
        (word.text, word.occurrence) for word in split_words(spaced)
    ]


@given(PROMPTS)
def test_words_are_in_order_apart_and_end_in_no_mark(prompt):
    words = split_words(prompt)
    for before, after in pairwise(words):
        assert before.end < after.start
    for word in words:
        for character in (word.text[0], word.text[-1]):
            assert unicodedata.category(character)[0] not in "PZ"


@given(PROMPTS)
def test_folding_keeps_the_origin_of_every_character(prompt):
    folded, origin = fold(prompt)
    assert len(folded) == len(origin)
    assert origin == sorted(origin)
    assert fold(prompt.upper())[0] == fold(fold(prompt.upper())[0])[0]


@given(PROMPTS, st.integers(0, 40), st.integers(0, 40))
def test_found_spans_read_as_the_phrase(prompt, a, b):
    phrase = prompt[min(a, b) : max(a, b)]
    for start, end in find_phrase(prompt, phrase):
        assert 0 <= start < end <= len(prompt)
        core = "".join(fold(phrase)[0].split())
        assert "".join(fold(prompt[start:end])[0].split()) in core


@pytest.mark.parametrize(("text", "blank"), [("", True), (" \t\n\u200b\x00", True), ("a", False), ("!", False)])
def test_blank(text, blank):
    assert is_blank(text) is blank
