"""Find where a caption names a sound: ESC-10 classes by known phrases, other labels by their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from attnviz.text.words import find_phrase, fold, split_words

ENDINGS = "(?:s|es|ed|e|ing|er|ers)?"
"""Endings that a stem may have: "crow" is in "crows" and "crowing", and not in "crowd"."""

_BETWEEN = 3  # maximal number of words between two words of one phrase: "a dog that loudly barks"

Span = tuple[int, int]


@dataclass(frozen=True)
class Phrases:
    """Phrases that name one sound.

    Attributes
    ----------
    clauses : tuple of str
        Phrases with a verb: they can follow "while" and "before".
    nouns : tuple of str
        Phrases without a verb: they can follow "followed by" and "the sound of".
    stems : tuple of str
        Words, without endings such as -s and -ing, that distinguish this sound from the others in any prompt.
    """

    clauses: tuple[str, ...]
    nouns: tuple[str, ...]
    stems: tuple[str, ...]

    def names(self, name: str) -> tuple[str, ...]:
        """Return the labels of the sound with this name: the name and all phrases."""
        return (name, *self.clauses, *self.nouns)


PHRASES: Mapping[str, Phrases] = MappingProxyType(
    {
        "Dog bark": Phrases(
            ("a dog barks", "a dog is barking", "the dog barks"),
            ("a barking dog", "a dog barking", "the bark of a dog"),
            ("dog", "bark"),
        ),
        "Rain": Phrases(
            ("rain falls", "rain is falling", "it rains", "rain patters down"),
            ("falling rain", "rain falling", "rain", "the patter of rain"),
            ("rain",),
        ),
        "Sea waves": Phrases(
            ("waves crash", "sea waves roll in", "waves break on the shore", "waves are crashing"),
            ("crashing waves", "sea waves", "ocean waves", "waves breaking on the shore"),
            ("wave", "sea", "ocean"),
        ),
        "Baby cry": Phrases(
            ("a baby cries", "a baby is crying", "an infant cries"),
            ("a crying baby", "a baby crying", "the cry of a baby"),
            ("baby", "babies", "infant", "cry", "cries"),
        ),
        "Clock tick": Phrases(
            ("a clock ticks", "a clock is ticking", "the clock ticks"),
            ("a ticking clock", "a clock ticking", "the ticking of a clock"),
            ("clock", "tick"),
        ),
        "Person sneeze": Phrases(
            ("a person sneezes", "someone sneezes", "a person is sneezing"),
            ("a sneeze", "a sneezing person", "a person sneezing"),
            ("sneez",),
        ),
        "Helicopter": Phrases(
            ("a helicopter flies", "a helicopter is flying", "a helicopter whirs"),
            ("a helicopter", "a flying helicopter", "a helicopter flying", "the whir of a helicopter"),
            ("helicopter",),
        ),
        "Chainsaw": Phrases(
            ("a chainsaw runs", "a chainsaw buzzes", "a chainsaw is running"),
            ("a chainsaw", "a buzzing chainsaw", "a chainsaw running", "the buzz of a chainsaw"),
            ("chainsaw",),
        ),
        "Rooster": Phrases(
            ("a rooster crows", "a rooster is crowing", "the rooster crows"),
            ("a crowing rooster", "a rooster crowing", "the crow of a rooster"),
            ("rooster", "crow"),
        ),
        "Fire crackling": Phrases(
            ("a fire crackles", "a fire is crackling", "a fire burns"),
            ("a crackling fire", "a fire crackling", "the crackle of a fire"),
            ("fire", "crackl"),
        ),
    }
)
"""Phrases of each class; the keys are ESC-10's class names."""


def find_label(caption: str, label: str) -> list[Span]:
    """Return the spans at which a caption names the sound of a label, in order.

    Parameters
    ----------
    caption : str
        The caption or prompt.
    label : str
        A phrase of the caption, or a class name: ``"Dog bark"``, ``"dog_bark"``, ``"Cat meow"``.

    Returns
    -------
    list of (int, int)
        Spans of the label itself, as `find_phrase` finds them. If there are none: for a known sound (given by name
        or by a phrase, see `PHRASES`), spans of its known phrases and stems; for any other label, spans that
        contain all of its words, possibly inflected.

    Examples
    --------
    >>> [find_label("a dog barks, then rain falls", label) for label in ("rain falls", "Dog bark", "Siren")]
    [[(18, 28)], [(0, 11)], []]
    >>> find_label("the kitten and the cat meow loudly", "Cat_meow")
    [(19, 27)]
    """
    spans = find_phrase(caption, label)
    if spans or not label.strip():
        return spans
    plain = _plain(label)
    own = next((one for name, one in PHRASES.items() if plain in map(_plain, one.names(name))), None)
    if own is None:
        words = plain.split()
        return [span for span, found in _groups(caption, words) if len(found) == len(set(words))]
    known = [span for phrase in (*own.clauses, *own.nouns) for span in find_phrase(caption, phrase)]
    known += [span for span, _ in _groups(caption, own.stems)]
    kept: list[Span] = []
    for start, end in sorted(known, key=lambda span: (span[0] - span[1], span)):  # the longest first
        if all(end <= other_start or other_end <= start for other_start, other_end in kept):
            kept.append((start, end))
    return sorted(kept)


def _plain(label: str) -> str:
    """Return a label in lower case with its words separated by single spaces: "Dog_bark" becomes "dog bark"."""
    return " ".join(re.sub(r"[_\W]+", " ", fold(label)[0]).split())


def _groups(caption: str, stems: Sequence[str]) -> list[tuple[Span, set[str]]]:
    """Return spans of nearby words that match stems, each stem once in a span, with the stems found in each."""
    groups: list[tuple[Span, set[str]]] = []
    last = -1
    for number, word in enumerate(split_words(caption)):
        text = fold(word.text)[0]
        stem = next((one for one in stems if re.fullmatch(re.escape(one) + ENDINGS, text)), None)
        if stem is None:
            continue
        if groups and stem not in groups[-1][1] and number - last - 1 <= _BETWEEN:
            (start, _), found = groups[-1]
            groups[-1] = ((start, word.end), found | {stem})
        else:
            groups.append(((word.start, word.end), {stem}))
        last = number
    return groups
