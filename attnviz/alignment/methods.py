"""The methods that are scored: the map, and controls computed from the phrases.

============  ======================================================================================
method        curve
============  ======================================================================================
map           activation of the phrase
constant      constant value
energy        log energy of the spectrogram, summed over bands; for a sharp readout, the same readout of a constant
              map
reversed      the map reversed in time, without padding; for a correct map it may score below chance, since early
              becomes late
other_clip    map of a random word of another clip of the pool, resampled to these columns
order         mean activity of other clips' phrases at the same position in the text (first of two phrases, second,
              ...), resampled to this clip: when the k-th sound of a caption usually occurs
============  ======================================================================================

``other_clip`` and ``order`` need at least two clips. ``order`` is undefined for a phrase at a position that no
other clip has (such as a third phrase if all others have two).

Further controls are given by name. Shuffling the words of a clip is not a control: with "X, then Y" the shuffled
map is that of the other sound.
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
MEAN_DECIMALS = 12
"""Decimals of mean activities: columns that are equal up to rounding are ties."""

SHARE_UNIT = 2.0**40
"""Activities are summed as whole multiples of its inverse."""


def method_names(phrases: Sequence[AlignedPhrase]) -> list[str]:
    """List the methods of a pool: map, built-in controls (some need two clips) and given controls."""
    several = len({phrase.events.clip for phrase in phrases}) > 1
    given = dict.fromkeys(name for phrase in phrases for name in phrase.curves if name != MAP)
    return [*(name for name in BUILT_IN if several or name not in _OF_POOLS), *given]


def other_phrases(phrases: Sequence[AlignedPhrase], seed: int) -> np.ndarray:
    """Draw a random phrase of another clip for each phrase, and return the indices.

    At least two clips are needed.
    """
    return other_rows(np.array([phrase.events.clip for phrase in phrases]), seed)


def other_rows(clips: np.ndarray, seed: int) -> np.ndarray:
    """Draw a random row of another clip for each row; see `other_phrases`.

    Parameters
    ----------
    clips : numpy.ndarray, shape (rows,)
        Clip of each row: its name, or a number that sorts like its name.
    seed : int
    """
    order = np.argsort(clips, kind="stable")
    starts = np.searchsorted(clips[order], clips, side="left")
    own = np.searchsorted(clips[order], clips, side="right") - starts
    drawn = np.random.default_rng(seed).integers(len(clips) - own)
    return np.asarray(order[np.where(drawn >= starts, drawn + own, drawn)])  # skips phrases of the own clip


def curves_of(phrases: Sequence[AlignedPhrase], method: str, others: np.ndarray) -> list[Draws]:
    """Return the curves of one method for each phrase; empty if the method is undefined."""
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
    """Return the mean activity of other clips' phrases at the same position in the text, on each phrase's columns.

    Phrases of captions with the same number of phrases are used or, if there are none, all phrases at that
    position. Phrases without events, and the same caption's phrases in other samples of the clip, are excluded.
    """
    places = _places(phrases)
    clips = np.unique([phrase.events.clip for phrase in phrases], return_inverse=True)[1]
    timed = np.array([len(phrase.events.times) > 0 for phrase in phrases])
    found: list[Draws] = [()] * len(phrases)
    lengths = np.array([len(phrase.share) for phrase in phrases])
    for length in np.unique(lengths):
        shares = whole_shares(np.stack([stretched(phrase.share, int(length)) for phrase in phrases]))
        alike, number = _means_of_others(shares, timed, clips, places)
        any_count, number_of_any = _means_of_others(shares, timed, clips, places[:, :1])
        for index in np.flatnonzero((lengths == length) & (number_of_any > 0)):
            mean = alike[index] if number[index] else any_count[index]
            found[index] = (np.round(mean, MEAN_DECIMALS),)
    return found


def whole_shares(shares: np.ndarray) -> np.ndarray:
    """Return activities as whole multiples of 1 / `SHARE_UNIT`, whose sums do not depend on the order."""
    return np.rint(shares * SHARE_UNIT).astype(np.int64)


def _means_of_others(
    shares: np.ndarray, timed: np.ndarray, clips: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over other clips' timed rows with the same key, ``(rows, columns)``, and their number."""
    group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    own = np.unique(np.column_stack([group, clips]), axis=0, return_inverse=True)[1].reshape(-1)
    sums, counts = [], []
    for labels in (group, own):
        total = np.zeros((int(labels.max()) + 1, shares.shape[1]), dtype=np.int64)
        np.add.at(total, labels[timed], shares[timed])
        sums.append(total[labels])
        counts.append(np.bincount(labels[timed], minlength=len(total))[labels])
    number = counts[0] - counts[1]
    return (sums[0] - sums[1]) / SHARE_UNIT / np.maximum(number, 1)[:, None], number


def _places(phrases: Sequence[AlignedPhrase]) -> np.ndarray:
    """Return the position of each phrase and the number of phrases in its caption, ``(phrases, 2)`` int."""
    spans: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for phrase in phrases:
        spans.setdefault((phrase.events.clip, phrase.sample), set()).add(phrase.events.span)
    ordered = {key: sorted(own) for key, own in spans.items()}
    whose = [(phrase.events.span, ordered[phrase.events.clip, phrase.sample]) for phrase in phrases]
    return np.array([(own.index(span), len(own)) for span, own in whose], dtype=np.int64).reshape(-1, 2)


def heats_of(phrases: Sequence[AlignedPhrase], method: str, others: np.ndarray, index: int) -> Draws:
    """Return the heat maps of one method for a phrase with a mask; empty if the method is undefined."""
    phrase = phrases[index]
    if method == CONSTANT:
        return tuple(np.zeros_like(heat) for heat in phrase.heats.get(MAP, ()))
    if method == REVERSED:
        return tuple(heat[:, ::-1] for heat in phrase.heats.get(MAP, ()))
    if method == OTHER_CLIP:
        rows, columns = phrase.heats[MAP][0].shape
        return tuple(resize(heat, (rows, columns)) for heat in phrases[others[index]].heats.get(MAP, ()))
    return tuple(phrase.heats.get(method, ()))
