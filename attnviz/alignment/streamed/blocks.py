"""Blocks of phrases as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.reading import MAP


@dataclass(frozen=True, eq=False)
class PhraseBlock:
    """Phrases of whole clips.

    Attributes
    ----------
    clips : sequence of str
        Clip of each phrase.
    sources : sequence of str or None
        Its source recording.
    samples : numpy.ndarray of int, shape (phrases,)
    spans : numpy.ndarray of int, shape (phrases, 2)
        Its characters in the caption.
    undefined : sequence of str
        Reason why it cannot be scored, or empty.
    seconds, column_seconds : numpy.ndarray, shape (phrases,)
        Duration of the clip, and width of a column.
    columns : numpy.ndarray of int, shape (phrases,)
        Number of columns; the others are NaN.
    curves : numpy.ndarray, shape (phrases, most columns)
        Curves of the map.
    shares : numpy.ndarray, shape (phrases, most columns)
        Fraction of each column that events cover.
    energy : numpy.ndarray, shape (phrases, most columns)
        Energy envelopes; NaN if unknown.
    times : sequence of numpy.ndarray, each (events, 2)
        Onsets and offsets in seconds, ascending and disjoint.
    """

    clips: Sequence[str]
    sources: Sequence[str | None]
    samples: np.ndarray
    spans: np.ndarray
    undefined: Sequence[str]
    seconds: np.ndarray
    column_seconds: np.ndarray
    columns: np.ndarray
    curves: np.ndarray
    shares: np.ndarray
    energy: np.ndarray
    times: Sequence[np.ndarray]


PhraseSource = Iterable[PhraseBlock]
"""Blocks in the order of the pool. It is iterated once. All phrases of a clip are in one block."""


def block_of(phrases: Sequence[AlignedPhrase]) -> PhraseBlock:
    """Return phrases with one curve each as a block."""
    columns = np.array([len(phrase.share) for phrase in phrases], dtype=np.int64)
    width = int(columns.max())

    def padded(rows: Sequence[np.ndarray | None]) -> np.ndarray:
        found = np.full((len(rows), width), np.nan)
        for number, row in enumerate(rows):
            if row is not None:
                found[number, : len(row)] = row
        return found

    return PhraseBlock(
        clips=[phrase.events.clip for phrase in phrases],
        sources=[phrase.events.source for phrase in phrases],
        samples=np.array([phrase.sample for phrase in phrases], dtype=np.int64),
        spans=np.array([phrase.events.span for phrase in phrases], dtype=np.int64).reshape(-1, 2),
        undefined=[phrase.undefined for phrase in phrases],
        seconds=np.array([phrase.seconds for phrase in phrases]),
        column_seconds=np.array([phrase.column_seconds for phrase in phrases]),
        columns=columns,
        curves=padded([phrase.curves[MAP][0] for phrase in phrases]),
        shares=padded([phrase.share for phrase in phrases]),
        energy=padded([phrase.energy for phrase in phrases]),
        times=[phrase.events.times for phrase in phrases],
    )
