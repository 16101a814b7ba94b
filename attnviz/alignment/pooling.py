"""Pool phrases: mean scores with intervals, comparisons with controls, and permutation tests against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import Bootstrap, defined_units, interval, known_means
from attnviz.alignment.comparing import (
    BETTER,
    FEWEST_SOURCES,
    NEITHER,
    TOO_FEW,
    WORSE,
    adjusted,
    p_values,
    verdicts,
)
from attnviz.alignment.detection import DETECTION, DetectionScores
from attnviz.alignment.exchange import EXCHANGED, permutation_interval
from attnviz.alignment.methods import CONSTANT
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.reading import MAP
from attnviz.alignment.scoring import SCORES, Score
from attnviz.wording import short_repr

ALL_SCORES = {**SCORES, **dict.fromkeys(DETECTION, Score("higher"))}
"""Scores of phrases, followed by scores of a whole pool."""

__all__ = ["ALL_SCORES", "BETTER", "FEWEST_SOURCES", "NEITHER", "TOO_FEW", "WORSE", "Pooled", "pooled_scores"]

_DECIMALS = 12  # an interval that ends at 0 up to rounding contains 0


@dataclass(frozen=True, eq=False)
class Pooled:
    """Pooled scores.

    Attributes
    ----------
    scores : pandas.DataFrame
        One row per method and score: ``method``, ``score``, ``value`` (mean over phrases, each the mean of its
        draws), ``low`` and ``high`` (95 % bootstrap interval over source recordings and clips), ``phrases`` and
        ``sources`` with a defined value, ``permutation_low`` and ``permutation_high`` (see
        `attnviz.alignment.exchange`), ``permuted`` (what was permuted: "clips", or "seeds" of a control),
        ``exchanged`` (mean score of maps exchanged between clips), ``chance`` (0.5 or 0; for scores that depend on
        the duration of the sounds, the score of the constant map; the average precision of noise is slightly
        higher), ``at_chance`` (whether the permutation interval contains `chance`; missing if there is no
        interval).
    differences : pandas.DataFrame
        One row per score and control: ``score``, ``control``, ``value`` (mean of map minus control over phrases
        with both), ``low``, ``high``, ``phrases``, ``sources``, ``p`` (two-sided bootstrap p-value),
        ``p_adjusted`` (Benjamini-Hochberg over all rows with a p-value), ``verdict`` on the map: "better" or
        "worse" if the interval excludes 0, the adjusted p-value is at most 0.05, and there are at least six
        sources and clips.
    """

    scores: pd.DataFrame
    differences: pd.DataFrame

    __repr__ = short_repr

    @property
    def comparisons(self) -> int:
        """Number of comparisons with controls that were tested together."""
        return int(self.differences["p"].notna().sum()) if len(self.differences) else 0


@dataclass(frozen=True, eq=False)
class MethodScores:
    """What is known of one method before its scores are pooled.

    Attributes
    ----------
    values : numpy.ndarray, shape (phrases, scores)
        Scores of the phrases, in the order of `SCORES`.
    detection : DetectionScores
    permuted : numpy.ndarray, shape (n_permutations, 4)
        Permuted pooled scores, in the order of `EXCHANGED`; no rows if there are none.
    what : str
        What was permuted: "clips" or "seeds".
    """

    values: np.ndarray
    detection: DetectionScores
    permuted: np.ndarray
    what: str = "clips"


def pooled_scores(found: Mapping[str, MethodScores], bootstrap: Bootstrap) -> Pooled:
    """Pool the scores of methods, of which the first is the map.

    Parameters
    ----------
    found : mapping of str to MethodScores
    bootstrap : Bootstrap
        Resamples of the phrases.
    """
    rows, differences = [], []
    own = found[MAP]
    for method, scores in found.items():
        # Both together: each look at the resamples costs.
        both = scores.values if method == MAP else np.hstack([scores.values, own.values - scores.values])
        replicates = bootstrap.means(both)
        means = _method_rows(method, scores.values, replicates[:, : len(SCORES)], bootstrap)
        if len(scores.permuted):
            _add_permutation(means, scores.permuted, scores.what)
        rows += means
        rows += _detection_rows(method, scores.detection, bootstrap)
        if method != MAP:
            differences += _difference_rows(
                method, own.values - scores.values, replicates[:, len(SCORES) :], bootstrap
            )
            differences += _detection_differences(method, own.detection, scores.detection, bootstrap)
    return Pooled(_with_chance(pd.DataFrame(rows)), _judged(pd.DataFrame(differences)))


def seed_means(table: pd.DataFrame, method: str, phrases: Sequence[AlignedPhrase]) -> np.ndarray:
    """Return the pooled scores of each map of a given control, ``(maps, scores)`` in the order of `EXCHANGED`."""
    rows = table[(table["method"] == method) & (table["undefined"] == "")]
    seeds = rows["phrase"].map({number: phrase.seeds.get(method, 1) for number, phrase in enumerate(phrases)})
    draws = rows.groupby("phrase")["draw"].transform("size")
    seed = (rows["draw"] * seeds // draws).astype("int64").rename("seed")
    by_phrase = rows.groupby([seed, "phrase"])[[*EXCHANGED]].mean()
    return by_phrase.groupby("seed").mean().to_numpy(dtype=np.float64)


def _add_permutation(rows: list[dict[str, object]], replicates: np.ndarray, what: str) -> None:
    for row in rows:
        if row["score"] in EXCHANGED and len(replicates):
            column = replicates[:, EXCHANGED.index(str(row["score"]))]
            known = column[~np.isnan(column)]
            bounds = ALL_SCORES[str(row["score"])].bounds
            low, high = np.clip(permutation_interval(float(str(row["value"])), column), *bounds).tolist()
            row |= {"permutation_low": low, "permutation_high": high, "permuted": what if known.size else ""}
            row["exchanged"] = float(known.mean()) if known.size and what == "clips" else float("nan")


def _method_rows(
    method: str, values: np.ndarray, replicates: np.ndarray, bootstrap: Bootstrap
) -> list[dict[str, object]]:
    means, units = known_means(values), defined_units(values, bootstrap.units)
    low, high = interval(replicates, bootstrap.clusters(values))
    rows: list[dict[str, object]] = []
    for column, score in enumerate(SCORES):
        row = _row(method, score, means[column], low[column], high[column])
        row |= {"phrases": int((~np.isnan(values[:, column])).sum()), "sources": int(units[column])}
        rows.append(row)
    return rows


def _detection_rows(method: str, found: DetectionScores, bootstrap: Bootstrap) -> list[dict[str, object]]:
    sources, clusters = _of_all(bootstrap) if found.phrases else (0, 0)
    low, high = interval(found.replicates, np.full(len(DETECTION), clusters))
    return [
        _row(method, score, found.values[column], low[column], high[column])
        | {"phrases": found.phrases, "sources": sources}
        for column, score in enumerate(DETECTION)
    ]


def _row(method: str, score: str, value: float, low: float, high: float) -> dict[str, object]:
    row: dict[str, object] = {"method": method, "score": score, "value": float(value)}
    row |= {"low": float(low), "high": float(high), "phrases": 0, "sources": 0}
    row |= dict.fromkeys(("permutation_low", "permutation_high", "exchanged"), float("nan"))
    return row | {"permuted": ""}


def _difference_rows(
    control: str, values: np.ndarray, replicates: np.ndarray, bootstrap: Bootstrap
) -> list[dict[str, object]]:
    units, clusters = defined_units(values, bootstrap.units), bootstrap.clusters(values)
    low, high = interval(replicates, clusters)
    means, number = known_means(values), (~np.isnan(values)).sum(axis=0)
    p = p_values(means, replicates, clusters)
    return [
        _difference(
            score, control, (means[i], low[i], high[i], p[i]), int(number[i]), int(units[i]), int(clusters[i])
        )
        for i, score in enumerate(SCORES)
        if SCORES[score].direction != "zero"
    ]


def _detection_differences(
    control: str, own: DetectionScores, other: DetectionScores, bootstrap: Bootstrap
) -> list[dict[str, object]]:
    both = own.phrases == other.phrases and own.phrases > 0  # otherwise the phrases differ and cannot be paired
    gap = own.replicates - other.replicates if both else np.full_like(own.replicates, np.nan)
    phrases, (sources, clusters) = (own.phrases, _of_all(bootstrap)) if both else (0, (0, 0))
    low, high = interval(gap, np.full(len(DETECTION), clusters))
    means = own.values - other.values if both else np.full(len(DETECTION), np.nan)
    p = p_values(means, gap, np.full(len(DETECTION), clusters))
    return [
        _difference(score, control, (means[i], low[i], high[i], p[i]), phrases, sources, clusters)
        for i, score in enumerate(DETECTION)
    ]


def _of_all(bootstrap: Bootstrap) -> tuple[int, int]:
    """Return the number of sources, and the number of resampled clusters."""
    return len(np.unique(bootstrap.units)), min(len(np.unique(way)) for way in bootstrap.ways)


def _difference(
    score: str,
    control: str,
    estimate: tuple[float, float, float, float],
    phrases: int,
    sources: int,
    clusters: int,
) -> dict[str, object]:
    value, low, high, p = map(float, estimate)
    row: dict[str, object] = {"score": score, "control": control, "value": value, "low": low, "high": high}
    judged = clusters >= FEWEST_SOURCES and not np.isnan(low)
    return row | {
        "phrases": phrases, "sources": sources, "clusters": clusters, "p": p if judged else float("nan")
    }  # fmt: skip


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Add p-values adjusted over all rows, and verdicts."""
    if not len(rows):
        return rows
    lower = np.array([ALL_SCORES[score].direction == "lower" for score in rows["score"]])
    low = np.where(lower, -rows["high"], rows["low"])
    high = np.where(lower, -rows["low"], rows["high"])
    p_adjusted = adjusted(rows["p"].to_numpy())
    verdict = verdicts(low, high, p_adjusted, rows["clusters"].to_numpy())
    return rows.drop(columns="clusters").assign(p_adjusted=p_adjusted, verdict=verdict)


def _with_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """Add the chance level, and whether the permutation interval contains it."""
    constant = scores[scores["method"] == CONSTANT].set_index("score")["value"]
    known = {score: of.chance for score, of in ALL_SCORES.items()}
    scores["chance"] = [
        constant[score] if np.isnan(known[score]) else known[score] for score in scores["score"].tolist()
    ]
    low, high = scores["permutation_low"].round(_DECIMALS), scores["permutation_high"].round(_DECIMALS)
    held = ((low <= scores["chance"]) & (scores["chance"] <= high)).astype("boolean")
    scores["at_chance"] = held.mask(low.isna())
    return scores
