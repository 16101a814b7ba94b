"""Write captions that state the order and overlap of the sounds of a scene correctly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.text.sounds import PHRASES

_PREFIXES = ("", "", "", "the sound of ", "we hear ", "a recording of ")
_ORDER = (", then ", " then ", ", and then ", ", followed by ", " followed by ", " before ")
_SAY_ORDER = 0.85  # probability of stating an order that holds
_SAY_OVERLAP = 0.6
_FULL_STOP = 0.3
_OVERLAP = 0.5  # fraction of the shorter of two sounds that must overlap the other for "while"


@dataclass(frozen=True)
class Heard:
    """A sound with the times at which it is first and last audible.

    Attributes
    ----------
    sound : str
        Class name, a key of `PHRASES`.
    first, last : float
        First onset and last offset, in seconds.
    """

    sound: str
    first: float
    last: float

    def beside(self, other: Heard) -> bool:
        """Return whether the two sounds overlap enough to be joined by "while"."""
        shared = min(self.last, other.last) - max(self.first, other.first)
        return shared >= _OVERLAP * min(self.last - self.first, other.last - other.first)


def write_caption(sounds: Sequence[Heard], rng: np.random.Generator) -> tuple[str, list[tuple[int, int]]]:
    """Write a caption that names every sound once.

    Parameters
    ----------
    sounds : sequence of Heard
        One or more sounds of different classes, in any order.
    rng : numpy.random.Generator
        Random generator that selects one of the correct captions.

    Returns
    -------
    caption : str
        Caption in lower case, with or without a full stop.
    spans : list of (int, int)
        Character span of the phrase of each sound, in the order of `sounds`.

    Notes
    -----
    The connectives have the following meanings in every caption:

    - *then*, *and then*, *followed by*, *before*: all sounds named earlier end before any sound named later
    begins.
    - *while*: any two of the joined sounds, back to the nearest of the words above, overlap for at least half of
    the
      shorter one (from first onset to last offset).
    - *and* and commas state neither order nor overlap. The order of the joined sounds is random.
    """
    by_onset = sorted(range(len(sounds)), key=lambda i: (sounds[i].first, sounds[i].last, sounds[i].sound))
    groups = _groups(sounds, by_onset, rng)
    joins = _joins(sounds, groups, rng)
    order = [i for group in groups for i in group]
    caption, spans = "", {}
    form = "clauses" if rng.random() < 0.5 else "nouns"
    for position, i in enumerate(order):
        join = joins[position - 1] if position else ""
        if join.endswith("followed by "):
            form = "nouns"
        elif join in (" while ", " before "):
            form = "clauses"
        choices: tuple[str, ...] = getattr(PHRASES[sounds[i].sound], form)
        phrase = choices[rng.integers(len(choices))]
        if not position and form == "nouns" and not phrase.startswith("the "):
            join = _PREFIXES[rng.integers(len(_PREFIXES))]
        caption += join
        spans[i] = (len(caption), len(caption) + len(phrase))
        caption += phrase
    if rng.random() < _FULL_STOP:
        caption += "."
    return caption, [spans[i] for i in range(len(sounds))]


def _groups(sounds: Sequence[Heard], by_onset: list[int], rng: np.random.Generator) -> list[list[int]]:
    """Split the sounds at points where all earlier sounds end before all later ones begin, some at random."""
    groups: list[list[int]] = [[by_onset[0]]]
    over = sounds[by_onset[0]].last
    for i in by_onset[1:]:
        # Sounds are sorted by onset, so all remaining sounds begin later than this one.
        if sounds[i].first >= over and rng.random() < _SAY_ORDER:
            groups.append([i])
        else:
            groups[-1].append(i)
        over = max(over, sounds[i].last)
    return [[group[j] for j in rng.permutation(len(group))] for group in groups]


def _joins(sounds: Sequence[Heard], groups: list[list[int]], rng: np.random.Generator) -> list[str]:
    """Choose the connectives between consecutive phrases."""
    joins: list[str] = []
    for position, group in enumerate(groups):
        if position:
            simple = len(group) == 1 and len(groups[position - 1]) == 1 and " before " not in joins
            choices = _ORDER if simple else _ORDER[:-1]
            joins.append(choices[rng.integers(len(choices))])
        if len(group) > 1:
            together = all(sounds[i].beside(sounds[j]) for i in group for j in group if i != j)
            last = " while " if together and rng.random() < _SAY_OVERLAP else " and "
            lead = len(group) - 2  # phrases joined before the last join
            # "a, b and c"; "a and b while c"; "a, b and c while d"
            inner = [", "] * lead
            if last == " while " and lead:
                inner[-1] = " and "
            joins += [*inner, last]
    return joins
