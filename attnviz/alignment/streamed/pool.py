"""Pool phrases: those of an alignment, or a stream of more than fit into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import MOST_RESAMPLES, Bootstrap
from attnviz.alignment.detection import DetectionScores
from attnviz.alignment.exchange import EXCHANGED, flipped_means
from attnviz.alignment.methods import BUILT_IN, method_names
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.pooling import MethodScores, Pooled, pooled_scores, seed_means
from attnviz.alignment.scoring import SCORES, curve_scores
from attnviz.alignment.streamed.blocks import PhraseSource, block_of
from attnviz.alignment.streamed.collection import Collection, GivenDraws, collect
from attnviz.alignment.streamed.detecting import detection_of
from attnviz.alignment.streamed.exchanging import exchanged_of
from attnviz.alignment.streamed.scratch import DrawnBootstrap
from attnviz.arguments import whole_number
from attnviz.wording import short_repr

_NO_ROWS = np.empty((0, len(EXCHANGED)))
_NO_UNITS = np.empty(0, dtype=np.int64)
_NOTHING = MethodScores(
    np.empty((0, len(SCORES))), DetectionScores(np.full(2, np.nan), np.empty((0, 2)), 0), _NO_ROWS
)

Progress = Callable[[str, float], object]
"""Called with the name of a part of the work, and the share of it that is done."""


@dataclass(frozen=True, eq=False)
class StreamedPool:
    """Pooled scores of a stream of phrases.

    Attributes
    ----------
    pooled : Pooled
        Scores and comparisons, as of `Alignment.pool`. No IoU: maps over frequency are not streamed.
    phrases, clips : int
        Number of phrases, and of clips.
    reasons : dict of str to int
        Reasons why phrases could not be scored, with their numbers.
    column_ms : tuple of float
        Widths of the scored columns in ms, ascending.
    unit : str
        Unit of the bootstrap.
    """

    pooled: Pooled
    phrases: int
    clips: int
    reasons: dict[str, int]
    column_ms: tuple[float, ...]
    unit: str

    __repr__ = short_repr


def pool_stream(
    source: PhraseSource,
    *,
    n_resamples: int = 1000,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> StreamedPool:
    """Pool the scores of a stream of phrases, with the statistics of `Alignment.pool`.

    Parameters
    ----------
    source : iterable of PhraseBlock
    n_resamples, n_permutations, seed : int
        As for `Alignment.pool` and `attnviz.align`.
    progress : callable, optional
        Called with the name of a part of the work, and the share of it that is done.

    Returns
    -------
    StreamedPool

    Raises
    ------
    ArgumentError
        If a number is not a whole number from 1 to 100 000.
    MapsError
        If there is no phrase.
    OutputError
        If the folder of temporary files is full: a phrase needs about 10 KB there (curves, records of exchanges,
        resamples and permutations).

    Notes
    -----
    Memory holds a few thousand phrases, and of the others their scores and the steps of their detections: about
    1 KB each.
    """
    n_resamples = whole_number("n_resamples", n_resamples, most=MOST_RESAMPLES)
    n_permutations = whole_number("n_permutations", n_permutations, most=MOST_RESAMPLES)
    said = progress or (lambda part, share: None)
    with tempfile.TemporaryDirectory(prefix="attnviz-pool-") as scratch:
        folder = Path(scratch)
        said("Reading", 0.0)
        collection = collect(source, folder, seed)
        numbers = np.flatnonzero(collection.scored)
        said("Resampling", 0.0)
        bootstrap = DrawnBootstrap.of(_bootstrap(collection, numbers, n_resamples), folder / "weights")
        permuted = exchanged_of(
            collection, numbers, n_permutations, folder, lambda share: said("Exchanging maps", share)
        )
        found = {}
        for place, method in enumerate(collection.methods):
            said("Scoring", place / len(collection.methods))
            found[method] = MethodScores(
                _scores(collection, method, numbers),
                detection_of(collection, method, numbers, bootstrap),
                permuted[method],
            )
        pooled = pooled_scores(found, bootstrap)
        said("Scoring", 1.0)
    return StreamedPool(
        pooled,
        len(collection),
        collection.n_clips,
        collection.reasons,
        tuple(sorted({round(1e3 * width, 6) for width in np.unique(collection.column_seconds).tolist()})),
        _unit(collection.named_sources),
    )


def pool_phrases(
    phrases: Sequence[AlignedPhrase], table: pd.DataFrame, *, n_resamples: int, n_permutations: int, seed: int
) -> Pooled:
    """Pool the scores of phrases; see `attnviz.alignment.Alignment.pool`.

    Parameters
    ----------
    phrases : sequence of AlignedPhrase
    table : pandas.DataFrame
        Score table of the phrases.
    n_resamples, n_permutations, seed : int
    """
    if not phrases:
        return pooled_scores(dict.fromkeys(method_names(()), _NOTHING), Bootstrap(_NO_UNITS, 0, seed))
    values = {method: _phrase_means(table, method, len(phrases)) for method in method_names(phrases)}
    with tempfile.TemporaryDirectory(prefix="attnviz-pool-") as scratch:
        folder = Path(scratch)
        collection = collect([block_of(phrases)], folder, seed)
        for number, name in enumerate(name for name in method_names(phrases) if name not in BUILT_IN):
            draws = [phrase.curves.get(name, ()) for phrase in phrases]
            collection.given[name] = GivenDraws.kept_in(folder / f"given-{number}", draws)
        numbers = np.flatnonzero(collection.scored)
        bootstrap = _bootstrap(collection, numbers, n_resamples)
        kept = [phrases[number] for number in numbers.tolist()]
        flipped = {
            method: flipped_means(seed_means(table, method, phrases), n_permutations, seed)
            for method in collection.given
            if any(method in phrase.seeds for phrase in kept)
        }
        # Seeds differ, not clips, where one network is used for all clips.
        of_seeds = {method: rows for method, rows in flipped.items() if len(rows)}
        permuted = exchanged_of(collection, numbers, n_permutations, folder, lambda share: None, of_seeds)
        return pooled_scores(
            {
                method: MethodScores(
                    values[method][numbers],
                    detection_of(collection, method, numbers, bootstrap),
                    of_seeds.get(method, permuted.get(method, _NO_ROWS)),
                    "seeds" if method in of_seeds else "clips",
                )
                for method in collection.methods
            },
            bootstrap,
        )


def _bootstrap(collection: Collection, numbers: np.ndarray, n_resamples: int) -> Bootstrap:
    units, clips = (
        np.unique(codes[numbers], return_inverse=True)[1] for codes in (collection.units, collection.first_clips)
    )
    return Bootstrap(units, n_resamples, collection.seed, clips)


def _phrase_means(table: pd.DataFrame, method: str, count: int) -> np.ndarray:
    """Return the scores of one method, averaged over draws, ``(phrases, scores)``."""
    means = table[table["method"] == method].groupby("phrase")[[*SCORES]].mean()
    return means.reindex(range(count)).to_numpy(dtype=np.float64)


def _scores(collection: Collection, method: str, numbers: np.ndarray) -> np.ndarray:
    """Return the scores of phrases, ``(phrases, scores)``."""
    found = np.full((len(numbers), len(SCORES)), np.nan)
    place = np.full(len(collection), -1, dtype=np.int64)
    place[numbers] = np.arange(len(numbers))
    with_events = np.diff(collection.first_time) > 0
    onsets = np.full(len(collection), np.nan)
    onsets[with_events] = collection.times[collection.first_time[:-1][with_events], 0]
    for block in collection.blocks(numbers):
        columns = int(collection.columns[block[0]])
        curves = collection.of_method(method, block)
        known = ~np.isnan(curves).any(axis=1)
        rows = block[known]
        if len(rows):
            found[place[rows], : len(SCORES) - 1] = curve_scores(
                np.ascontiguousarray(curves[known]), collection.share(rows, columns),
                collection.envelope(rows, columns), onsets[rows], collection.column_seconds[rows],
            )  # fmt: skip
    return found


def _unit(named: tuple[bool, bool]) -> str:
    if all(named):
        return "source recordings, or clips if the events have no source"
    return "source recordings" if named[0] else "clips (the events have no source recording)"
