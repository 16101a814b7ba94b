"""Labels of events found in captions: as phrases, as classes of known sounds, as the words of any other class."""

from __future__ import annotations

import pytest

from attnviz.text.sounds import PHRASES, find_label


@pytest.mark.parametrize(
    ("caption", "label", "places"),
    [
        ("a dog barks, then rain falls", "dog barks", ["dog barks"]),  # a phrase is what it is
        ("a dog barks, then rain falls", "Dog bark", ["a dog barks"]),
        ("a dog barks, then rain falls", "dog_bark", ["a dog barks"]),
        ("a dog barks, then rain falls", "a dog is barking", ["a dog barks"]),  # another phrase of the class
        ("a dog barks, then rain falls", "Rain", ["rain"]),  # the label stands there
        ("it rains on the big dog that never barked", "Dog bark", ["dog that never barked"]),
        ("a dog barks, then another dog barks", "Dog bark", ["a dog barks", "dog barks"]),
        ("a crowd at the seaside", "Rooster", []),
        ("a crowd at the seaside", "Sea waves", []),
        ("many dogs", "Dog", ["dogs"]),
        ("the kitten and the cat meow", "Cat meow", ["cat meow"]),
        ("a cat sleeps", "Cat meow", []),  # half of a class is another
        ("a dog barks", "Siren", []),
        ("a dog barks", " ", []),
    ],
)
def test_where_a_label_stands(caption, label, places):
    assert [caption[start:end] for start, end in find_label(caption, label)] == places


@pytest.mark.parametrize("sound", PHRASES)
def test_every_known_phrase_is_found_by_its_class(sound):
    for phrase in (*PHRASES[sound].clauses, *PHRASES[sound].nouns):
        caption = f"at first {phrase}, and later nothing"
        (found,) = find_label(caption, sound)
        assert found in ((9, 9 + len(phrase)), *_within(caption, phrase, sound))
        assert all(find_label(caption, other) == [] for other in PHRASES if other != sound), caption


def _within(caption, phrase, sound):
    """A label that stands in the phrase itself ("rain" in "falling rain") is that word."""
    at = caption.lower().find(sound.lower())
    return [(at, at + len(sound))] if at >= 0 else []
