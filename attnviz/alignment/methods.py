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
============  ======================================================================================

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

CONSTANT, REVERSED, OTHER_CLIP = "constant", "reversed", "other_clip"
BUILT_IN = (MAP, CONSTANT, ENERGY, REVERSED, OTHER_CLIP)


def method_names(phrases: Sequence[AlignedPhrase]) -> list[str]:
    """List the methods of a pool: map, built-in controls, given ones. Another clip's words need a second clip."""
    several = len({phrase.events.clip for phrase in phrases}) > 1
    given = dict.fromkeys(name for phrase in phrases for name in phrase.curves if name != MAP)
    return [*(name for name in BUILT_IN if several or name != OTHER_CLIP), *given]


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
    return [phrase.curves.get(method, ()) for phrase in phrases]


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
