"""Which parts of a prompt may name a sound."""

from __future__ import annotations

import pytest

from attnviz.text.content import content_runs, sound_phrases
from attnviz.text.words import split_words


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a dog barks, then rain falls", ["dog barks", "rain falls"]),
        ("the sound of rain", ["rain"]),
        ("we hear a crowing rooster before someone sneezes.", ["crowing rooster", "someone sneezes"]),
        ("a recording of the patter of rain", ["patter", "rain"]),
        ("dog, dog and another dog", ["dog", "dog", "dog"]),
        ("and then", []),
        ("rain sounds loud", ["rain", "loud"]),
    ],
)
def test_phrases(prompt, phrases):
    words = [(word.start, word.end) for word in split_words(prompt)]
    assert [prompt[start:end] for start, end in sound_phrases(prompt, words)] == phrases


def test_words_that_were_not_stored_end_no_phrase_wrongly():
    prompt = "loud dog barks"
    assert content_runs(prompt, [(0, 4), (9, 14)]) == [[(0, 4)], [(9, 14)]]
