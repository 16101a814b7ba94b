"""Tables of a part: scores with intervals, controls and gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from alignment_parts.looking import FITTED
from alignment_parts.material import class_of
from alignment_parts.pieces import Piece
from alignment_parts.settings import Settings
from attnviz.alignment import Alignment, layer_lags, pool_profile
from attnviz.alignment.arrays import stretched
from attnviz.alignment.bootstrap import Bootstrap, defined_units, interval, known_means
from attnviz.alignment.comparing import TOO_FEW, adjusted, p_values, verdicts
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.profiling import units_of
from attnviz.alignment.reading import MAP

COMPARED = ("mean", "auffusion", "best layer", FITTED)
"""Readouts with all controls; the others (single layers) are scored without."""

LENGTHS = (0.0, 1.0, 2.0, 4.0, np.inf)
OVERLAPS = (-1e-9, 1e-9, 0.5, 1.0 + 1e-9)
LENGTH_NAMES = ("up to 1 s", "1 to 2 s", "2 to 4 s", "over 4 s")
OVERLAP_NAMES = ("none", "up to half", "over half")

Tables = dict[str, pd.DataFrame]


def alignments(pieces: Sequence[Piece]) -> dict[str, Alignment]:
    """Pool the phrases of all pieces for each readout."""
    readouts = list(dict.fromkeys(readout for piece in pieces for readout in piece.phrases))
    return {
        readout: Alignment(tuple(one for piece in pieces for one in piece.phrases[readout]), readout)
        for readout in readouts
    }


def headline(readouts: Sequence[str]) -> str:
    """Return the readout for figures: the fitted one, if any."""
    return FITTED if FITTED in readouts else "mean"


def look_tables(pieces: Sequence[Piece], settings: Settings, *, exact: bool) -> Tables:
    """Return the tables of one part.

    Parameters
    ----------
    pieces : sequence of Piece
    settings : Settings
    exact : bool
        Whether event times are exact to a fraction of a column, as needed for lags.
    """
    results = alignments(pieces)
    main = headline(list(results))
    full = {readout: result for readout, result in results.items() if readout in COMPARED}
    pooled = {
        readout: result.pool(n_resamples=settings.resamples, n_permutations=settings.resamples)
        for readout, result in full.items()
    }
    single = phrase_scores(on_columns_of(results[main], results))
    tables = {
        "readouts": mean_rows("readout", single, settings.resamples),
        "gains": gains(single, main, settings.resamples),
        "controls": _joined({readout: found.scores for readout, found in pooled.items()}),
        "differences": _joined({readout: found.differences for readout, found in pooled.items()}),
        "phrases": with_facts(results[main], [piece.phrases[main] for piece in pieces]),
        "undefined": results[main].undefined,
        "profile": pool_profile(
            pd.concat([piece.profile for piece in pieces], ignore_index=True), n_resamples=settings.resamples
        ),
    }
    tables["reliability"] = reliability(tables["phrases"], settings.resamples)
    if exact:
        tables["lags"] = layer_lags(results.values(), n_resamples=settings.resamples)
    return tables


def on_columns_of(main: Alignment, others: Mapping[str, Alignment]) -> dict[str, Alignment]:
    """Resample the curves of other readouts to the columns of one readout.

    Short sounds cannot be scored on wide columns, so a layer with wide columns would otherwise have fewer and
    easier phrases than the others.
    """
    return {
        name: Alignment(
            tuple(
                replace(ours, curves=_resampled(theirs, ours), seeds={}, mask=None, heats={})
                for ours, theirs in zip(main.phrases, other.phrases, strict=True)
            ),
            name,
        )
        for name, other in others.items()
    }


def _resampled(phrase: AlignedPhrase, like: AlignedPhrase) -> dict[str, tuple[np.ndarray, ...]]:
    columns, ratio = len(like.share), like.column_seconds / phrase.column_seconds
    return {MAP: tuple(stretched(curve, columns, ratio) for curve in phrase.curves[MAP])}


def phrase_scores(results: Mapping[str, Alignment], score: str = "roc_auc") -> pd.DataFrame:
    """Return one score of every phrase: ``clip``, ``source``, and one column per readout."""
    columns: dict[str, np.ndarray] = {}
    facts = pd.DataFrame()
    for readout, result in results.items():
        own = result.table[result.table["method"] == "map"]
        facts = own[["clip", "source"]].reset_index(drop=True)
        columns[readout] = own[score].to_numpy(dtype=np.float64)
    return facts.assign(**columns)


def mean_rows(name: str, values: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Average columns over phrases, with bootstrap intervals over sources.

    Parameters
    ----------
    name : str
        Name of the columns.
    values : pandas.DataFrame
        ``clip``, ``source``, and further columns; NaN is ignored.
    resamples : int
    """
    names = [column for column in values.columns if column not in ("clip", "source")]
    array = values[names].to_numpy(dtype=np.float64)
    return _rows_with_p(name, names, array, values, resamples).drop(columns=["p", "clusters"])


def _rows_with_p(
    name: str, names: list[str], array: np.ndarray, facts: pd.DataFrame, resamples: int
) -> pd.DataFrame:
    bootstrap = Bootstrap(pd.factorize(units_of(facts))[0], resamples, 0, pd.factorize(facts["clip"])[0])
    sources, clusters = defined_units(array, bootstrap.units), bootstrap.clusters(array)
    replicates = bootstrap.means(array)
    low, high = interval(replicates, clusters)
    rows = pd.DataFrame({name: names, "value": known_means(array), "low": low, "high": high})
    rows = rows.assign(phrases=(~np.isnan(array)).sum(axis=0), sources=sources)
    return rows.assign(p=p_values(known_means(array), replicates, clusters), clusters=clusters)


def gains(single: pd.DataFrame, main: str, resamples: int) -> pd.DataFrame:
    """Compare one readout with every other, paired by phrase.

    "better" or "worse" if the interval of the paired difference excludes 0, there are at least six sources and
    clips, and the false discovery rate over all compared readouts is at most 5 %.
    """
    others = [name for name in single.columns if name not in ("clip", "source", main)]
    paired = single[["clip", "source"]].assign(**{name: single[main] - single[name] for name in others})
    rows = _rows_with_p("over", others, paired[others].to_numpy(dtype=np.float64), paired, resamples)
    p_adjusted, clusters = adjusted(rows.pop("p").to_numpy()), rows.pop("clusters")
    found = verdicts(rows["low"], rows["high"], p_adjusted, clusters)
    return rows.assign(readout=main, verdict=np.where(rows["low"].isna(), TOO_FEW, found))


def with_facts(result: Alignment, captions: Sequence[Sequence[AlignedPhrase]]) -> pd.DataFrame:
    """Return the scores of every phrase and method, with the duration and overlap of its sound.

    Parameters
    ----------
    result : Alignment
    captions : sequence of sequence of AlignedPhrase
        Phrases of the result by caption.
    """
    rows = result.table
    return rows.assign(
        seconds=rows["phrase"].map(dict(enumerate(_seconds(result.phrases)))),
        overlap=rows["phrase"].map(dict(enumerate(share for one in captions for share in _overlaps(one)))),
        sound=rows["label"].map(class_of),
    )


def reliability(phrases: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Average the ROC-AUC of the map over phrases grouped by event length, overlap or sound."""
    own = phrases[(phrases["method"] == "map") & (phrases["undefined"] == "")]
    groups = {
        "length": pd.cut(own["seconds"], LENGTHS, labels=LENGTH_NAMES),
        "overlap": pd.cut(own["overlap"], OVERLAPS, labels=OVERLAP_NAMES),
        "sound": own["sound"].where(own["sound"] != ""),
    }
    frames = []
    for kind, group in groups.items():
        for name, rows in own.groupby(group, observed=True, sort=True):
            means = mean_rows("name", rows[["clip", "source"]].assign(**{str(name): rows["roc_auc"]}), resamples)
            frames.append(means.assign(by=kind))
    columns = ["by", "name", "value", "low", "high", "phrases", "sources"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _joined(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(
        [frame.assign(readout=readout) for readout, frame in frames.items() if len(frame)], ignore_index=True
    )


def _seconds(phrases: Sequence[AlignedPhrase]) -> list[float]:
    return [float((phrase.events.times[:, 1] - phrase.events.times[:, 0]).sum()) for phrase in phrases]


def _overlaps(phrases: Sequence[AlignedPhrase]) -> list[float]:
    """Return the share of each sound that is overlapped by another phrase of the same caption."""
    shares = []
    for number, phrase in enumerate(phrases):
        others = [other.share for place, other in enumerate(phrases) if place != number]
        covered = np.max([np.zeros_like(phrase.share), *others], axis=0)
        total = phrase.share.sum()
        shares.append(float((phrase.share * covered).sum() / total) if total > 0 else float("nan"))
    return shares
