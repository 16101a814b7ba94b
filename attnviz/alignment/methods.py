"""The methods that are scored beside each other: the map, and the controls made of what the phrases hold.

============  ======================================================================================
method        curve
============  ======================================================================================
map           the phrase's own activation
constant      the same value everywhere
energy        log energy of the spectrogram, summed over bands
reversed      the map backwards in time, padding left where it is; of a map that is right it may score below
              chance, since what is early becomes late
other_clip    the map of a word of another clip of the pool, drawn at random, brought to these columns
order         the mean activity of other clips' phrases at the same place in the text (the first of two phrases,
              the second, ...), stretched to this clip: when the k-th sound of a caption is there, whatever it is
============  ======================================================================================

``other_clip`` and ``order`` need a second clip. A phrase that stands where none of the other clips has one (the
third, where they have two) has no ``order``.

Beside these stand the controls that were given by name. Shuffling the words of one clip is no control: with "X,
then Y" the shuffled map is simply that of the other sound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attnviz.alignment.arrays import stretched
from attnviz.alignment.phrases import AlignedPhrase, Draws
from attnviz.alignment.reading import ENERGY, MAP
from attnviz.maps import resize

CONSTANT, REVERSED, OTHER_CLIP, ORDER = "constant", "reversed", "other_clip", "order"
BUILT_IN = (MAP, CONSTANT, ENERGY, REVERSED, OTHER_CLIP, ORDER)
_OF_POOLS = (OTHER_CLIP, ORDER)


def method_names(phrases: Sequence[AlignedPhrase]) -> list[str]:
    """List the methods of a pool: map, built-in controls, given ones. Those of other clips need a second clip."""
    several = len({phrase.events.clip for phrase in phrases}) > 1
    given = dict.fromkeys(name for phrase in phrases for name in phrase.curves if name != MAP)
    return [*(name for name in BUILT_IN if several or name not in _OF_POOLS), *given]


def other_phrases(phrases: Sequence[AlignedPhrase], seed: int) -> np.ndarray:
    """Draw for each phrase one of another clip, evenly; returns their indices.

    Every phrase needs one: two clips at least.
    """
    clips = np.array([phrase.events.clip for phrase in phrases])
    order = np.argsort(clips, kind="stable")
    starts = np.searchsorted(clips[order], clips, side="left")
    own = np.searchsorted(clips[order], clips, side="right") - starts
    drawn = np.random.default_rng(seed).integers(len(phrases) - own)
    return np.asarray(order[np.where(drawn >= starts, drawn + own, drawn)])  # passes over the clip's own phrases


def curves_of(phrases: Sequence[AlignedPhrase], method: str, others: np.ndarray) -> list[Draws]:
    """Return each phrase's curves of one method; none where the method has none."""
    if method == CONSTANT:
        return [(np.zeros_like(phrase.share),) for phrase in phrases]
    if method == ENERGY:
        return [() if phrase.energy is None else (phrase.energy,) for phrase in phrases]
    if method == REVERSED:
        return [tuple(curve[::-1] for curve in phrase.curves[MAP]) for phrase in phrases]
    if method == OTHER_CLIP:
        donors = [phrases[index].curves[MAP] for index in others]
        return [
            tuple(stretched(curve, len(phrase.share)) for curve in draws)
            for phrase, draws in zip(phrases, donors, strict=True)
        ]
    if method == ORDER:
        return order_curves(phrases)
    return [phrase.curves.get(method, ()) for phrase in phrases]


def order_curves(phrases: Sequence[AlignedPhrase]) -> list[Draws]:
    """Return when the phrases of other clips at each phrase's place in the text are there, on its columns.

    Of the other clips' phrases, those of captions with as many phrases; where there is none, all at that place.
    Phrases without events, and the same caption's phrases in other samples of the clip, are not among them.
    """
    places = _places(phrases)
    clips = np.array([phrase.events.clip for phrase in phrases])
    timed = np.array([len(phrase.events.times) > 0 for phrase in phrases])
    found: list[Draws] = [()] * len(phrases)
    for length in sorted({len(phrase.share) for phrase in phrases}):
        shares = np.stack([stretched(phrase.share, length) for phrase in phrases])
        for index in [number for number, phrase in enumerate(phrases) if len(phrase.share) == length]:
            others = timed & (clips != clips[index]) & (places[:, 0] == places[index, 0])
            alike = others & (places[:, 1] == places[index, 1])
            chosen = alike if alike.any() else others
            if chosen.any():
                found[index] = (shares[chosen].mean(axis=0),)
    return found


def _places(phrases: Sequence[AlignedPhrase]) -> np.ndarray:
    """Return which phrase of its caption each is, and of how many, ``(phrases, 2)`` int."""
    spans: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for phrase in phrases:
        spans.setdefault((phrase.events.clip, phrase.sample), set()).add(phrase.events.span)
    ordered = {key: sorted(own) for key, own in spans.items()}
    whose = [(phrase.events.span, ordered[phrase.events.clip, phrase.sample]) for phrase in phrases]
    return np.array([(own.index(span), len(own)) for span, own in whose], dtype=np.int64).reshape(-1, 2)


def heats_of(phrases: Sequence[AlignedPhrase], method: str, others: np.ndarray, index: int) -> Draws:
    """Return the heat maps of one method for a phrase whose mask is known; none where the method has none."""
    phrase = phrases[index]
    if method == CONSTANT:
        return tuple(np.zeros_like(heat) for heat in phrase.heats.get(MAP, ()))
    if method == REVERSED:
        return tuple(heat[:, ::-1] for heat in phrase.heats.get(MAP, ()))
    if method == OTHER_CLIP:
        rows, columns = phrase.heats[MAP][0].shape
        return tuple(resize(heat, (rows, columns)) for heat in phrases[others[index]].heats.get(MAP, ()))
    return tuple(phrase.heats.get(method, ()))
