"""Results of clips as a table and arrays: what a shard writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from attnviz.alignment.methods import CONSTANT, REVERSED
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.reading import ENERGY as ENERGY_CONTROL
from attnviz.alignment.reading import MAP
from attnviz.alignment.scoring import SCORES, method_scores
from attnviz.corpus.arrays import ACTIVATION, DTYPES, ENERGY, SHARE, ActivationStore
from attnviz.corpus.clips import PlannedClip
from attnviz.errors import CorpusError
from attnviz.maps import AttentionMaps
from attnviz.wording import short_repr

DONE, FAILED = "done", "failed"
OF_ONE_CLIP = (MAP, CONSTANT, ENERGY_CONTROL, REVERSED)
"""Methods whose scores need no other clip."""

_FACTS = [
    ("index", pa.int64()), ("clip", pa.string()), ("caption", pa.string()), ("seed", pa.int64()),
    ("status", pa.string()), ("reason", pa.string()), ("warnings", pa.string()), ("phrase", pa.int32()),
    ("label", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("scored", pa.bool_()),
    ("undefined", pa.string()), ("source", pa.string()), ("origin", pa.string()), ("sound_class", pa.string()),
    ("onsets", pa.list_(pa.float64())), ("offsets", pa.list_(pa.float64())), ("zero_length", pa.int32()),
    ("clipped", pa.int32()), ("seconds", pa.float64()), ("column_seconds", pa.float64()), ("columns", pa.int32()),
]  # fmt: skip


def score_column(method: str, score: str) -> str:
    """Return the column of a score of a method: that of the map has the plain name of the score."""
    return score if method == MAP else f"{method}_{score}"


SCORE_COLUMNS = [score_column(method, score) for method in OF_ONE_CLIP for score in SCORES]


@dataclass(frozen=True)
class ClipResult:
    """What a task makes of a clip.

    Attributes
    ----------
    phrases : tuple of AlignedPhrase
        Its phrases with their curves (``curves["map"]``), in the order of the caption.
    scored : bool
        Whether their events are known, so that they have scores.
    facts : mapping of str to float
        Further numbers of the clip, a column each; all clips of a plan have the same.
    maps : AttentionMaps or None
        Full maps, which are kept for clips of the sample.
    audio : numpy.ndarray or None
        Audio at 16 kHz, kept with them.
    files : mapping of str to bytes
        Further files of the clip by name, kept for every clip; see `Corpus.clip_files`.
    """

    phrases: tuple[AlignedPhrase, ...]
    scored: bool
    facts: Mapping[str, float] = field(default_factory=dict)
    maps: AttentionMaps | None = None
    audio: np.ndarray | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    __repr__ = short_repr


@dataclass(frozen=True)
class Outcome:
    """A clip with its result, or the reason why it has none."""

    clip: PlannedClip
    result: ClipResult | None
    reason: str = ""
    warnings: tuple[str, ...] = ()


def table_of(outcomes: Sequence[Outcome]) -> pa.Table:
    """Return the rows of a shard: one per phrase, and one for a clip without phrases or that failed."""
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    names = dict.fromkeys(
        name for outcome in outcomes if outcome.result is not None for name in sorted(outcome.result.facts)
    )
    columns = [*_FACTS, *((name, pa.float64()) for name in (*SCORE_COLUMNS, *names))]
    return pa.Table.from_pylist(rows, pa.schema(columns))


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    clip, result = outcome.clip, outcome.result
    base: dict[str, Any] = {"index": clip.index, "clip": clip.clip, "caption": clip.caption, "seed": clip.seed}
    base |= {"status": DONE if result is not None else FAILED, "reason": outcome.reason}
    base |= {"warnings": "\n".join(outcome.warnings), "phrase": -1, "scored": False}
    if result is None:
        return [base]
    base |= {name: float(value) for name, value in result.facts.items()}
    rows = [
        base | _phrase_row(number, phrase, result.scored) | own
        for number, (phrase, own) in enumerate(zip(result.phrases, _scores(result), strict=True))
    ]
    return rows or [base]


def _phrase_row(number: int, phrase: AlignedPhrase, scored: bool) -> dict[str, Any]:
    events = phrase.events
    return {
        "phrase": number, "label": events.label, "start": events.span[0], "end": events.span[1], "scored": scored,
        "undefined": phrase.undefined if scored else "", "source": events.source, "origin": events.origin,
        "sound_class": events.sound_class, "onsets": events.times[:, 0].tolist(),
        "offsets": events.times[:, 1].tolist(), "zero_length": events.zero_length, "clipped": events.clipped,
        "seconds": phrase.seconds, "column_seconds": phrase.column_seconds, "columns": len(phrase.share),
    }  # fmt: skip


def _scores(result: ClipResult) -> list[dict[str, float]]:
    """Return the scores of each phrase, by column; only those that are known."""
    if not result.scored or not result.phrases:
        return [{} for _ in result.phrases]
    values = np.hstack([method_scores(result.phrases, method) for method in OF_ONE_CLIP])
    return [
        {name: value for name, value in zip(SCORE_COLUMNS, row, strict=True) if not np.isnan(value)}
        for row in values.tolist()
    ]


def check_result(result: ClipResult) -> None:
    """Raise if a task has not returned what makes a row of a table.

    Raises
    ------
    CorpusError
        With what is wrong.
    """
    if not isinstance(result, ClipResult):
        raise CorpusError(f"the task returned {type(result).__name__}; a ClipResult is needed.")
    known = {name for name, _ in _FACTS} | set(SCORE_COLUMNS)
    for name, value in result.facts.items():
        if name in known:
            raise CorpusError(f"facts has {name!r}, which is a column of every table. Give it another name.")
        if not isinstance(value, int | float | np.number | np.bool_):
            raise CorpusError(f"facts[{name!r}] is a {type(value).__name__}; a number is needed.")
    for name, content in result.files.items():
        if PurePath(name).name != name or name in ("", ".", "..") or "\0" in name:
            raise CorpusError(f"{name!r} is no name of a file; files of a clip are in one folder.")
        if not isinstance(content, bytes | bytearray | memoryview):
            raise CorpusError(f"files[{name!r}] is a {type(content).__name__}; bytes are needed.")
    for number, phrase in enumerate(result.phrases):
        columns = len(phrase.share)
        lengths = [len(curve) for curve in phrase.curves.get(MAP, ())]
        if len(lengths) != 1:
            raise CorpusError(f"phrase {number} has {len(lengths)} curves of {MAP!r}; one is needed.")
        lengths += [] if phrase.energy is None else [len(phrase.energy)]
        if any(length != columns for length in lengths):
            raise CorpusError(
                f"phrase {number} has curves of {lengths} columns, and its share has {columns}; all are needed in "
                "the same columns."
            )


def check_fit(result: ClipResult, store: ActivationStore) -> None:
    """Raise if a result does not fit into the stored activations.

    Raises
    ------
    CorpusError
        If it has more columns or phrases than the plan keeps.
    """
    widest = max((len(phrase.share) for phrase in result.phrases), default=0)
    if widest > store.columns:
        raise CorpusError(f"The clip has {widest} columns, more than keep.columns = {store.columns} of the plan.")
    if len(result.phrases) > store.slots:
        raise CorpusError(f"The clip has {len(result.phrases)} phrases, more than the words of any caption.")


def arrays_of(outcomes: Sequence[Outcome], store: ActivationStore) -> dict[str, np.ndarray]:
    """Return the arrays of a shard."""
    found = {
        name: np.full(store.shape(name, len(outcomes)), np.nan, dtype=dtype) for name, dtype in DTYPES.items()
    }
    for row, outcome in enumerate(outcomes):
        phrases = () if outcome.result is None else outcome.result.phrases
        for slot, phrase in enumerate(phrases):
            columns = len(phrase.share)
            found[ACTIVATION][row, slot, :columns] = phrase.curves[MAP][0]
            found[SHARE][row, slot, :columns] = phrase.share
            if phrase.energy is not None:
                found[ENERGY][row, :columns] = phrase.energy
    return found
