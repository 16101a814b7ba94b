"""How captions name the ten sounds of ESC-10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Phrases:
    """Phrases that name one sound.

    Attributes
    ----------
    clauses : tuple of str
        With a verb of their own: they can follow "while" and "before".
    nouns : tuple of str
        Without one: they can follow "followed by" and "the sound of".
    stems : tuple of str
        Words that tell this sound from the others in any prompt, without endings such as -s and -ing.
    """

    clauses: tuple[str, ...]
    nouns: tuple[str, ...]
    stems: tuple[str, ...]


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
