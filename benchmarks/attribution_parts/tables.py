"""Compare methods by paired differences, with the false discovery rate controlled."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import Bootstrap, interval, known_means
from attnviz.alignment.comparing import adjusted, p_values, verdicts
from attribution_parts.measuring import BASE, CONTROLS, COSTS, FAITHFUL, FITTED, KEY, SCORES

LOWER = ("onset_distance", "sharp_onset_distance", "infidelity")
"""Scores of which a lower value is better."""
ALL = (*SCORES, *FAITHFUL)
RESAMPLES = 2000


def pooled(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the mean of each method and score, with 95 % intervals over recordings and clips."""
    rows = []
    for name, part in scores.groupby("method", sort=False):
        for known, names in _kinds(part):
            found = _intervals(known, known[names].to_numpy(dtype=float), seed)
            for score, one in zip(names, found, strict=True):
                clips = known.loc[known[score].notna(), "clip"].nunique()
                rows.append({"method": name, "score": score, "clips": clips, **one})
    return pd.DataFrame(rows).rename(columns={"value": "mean"}).drop(columns=["p", "recordings"])


def compared(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the paired difference of each method from attention (mean, and fitted), with verdicts.

    Differences are signed so that positive is better. p-values of all comparisons are adjusted together
    (Benjamini-Hochberg).
    """
    methods = [name for name in scores["method"].unique() if name not in CONTROLS]
    rows = [
        row
        for base in (BASE, f"{BASE}, {FITTED}")
        if base in methods
        for name in methods
        if name != base
        for row in differences(scores, scores, name, base, seed)
    ]
    return judged(pd.DataFrame(rows))


def between(scores: pd.DataFrame, others: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the paired difference of each method with one model from the same with another, with verdicts."""
    names = [name for name in scores["method"].unique() if name in set(others["method"])]
    rows = [row for name in names for row in differences(scores, others, name, name, seed)]
    return judged(pd.DataFrame(rows))


def differences(
    scores: pd.DataFrame, others: pd.DataFrame, name: str, base: str, seed: int
) -> list[dict[str, object]]:
    """Return the paired differences of a method from a base, a row per score."""
    rows: list[dict[str, object]] = []
    kinds = (_kinds(table[table["method"] == method]) for table, method in ((scores, name), (others, base)))
    for (own, names), (its, _) in zip(*kinds, strict=True):
        pairs = own.merge(its, on=list(KEY), suffixes=("", "_base"), validate="one_to_one")
        signs = np.array([-1.0 if score in LOWER else 1.0 for score in names])
        gains = signs * (
            pairs[names].to_numpy(dtype=float) - pairs[[f"{score}_base" for score in names]].to_numpy(dtype=float)
        )
        found = _intervals(pairs, gains, seed)
        rows += [
            {"method": name, "against": base, "score": score, **one}
            for score, one in zip(names, found, strict=True)
        ]
    return [{"gain" if key == "value" else key: value for key, value in row.items()} for row in rows]


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Add adjusted p-values and verdicts to a table of differences."""
    if table.empty:
        return table
    table = table.assign(p_adjusted=adjusted(table["p"].to_numpy(dtype=float)))
    found = verdicts(table["low"], table["high"], table["p_adjusted"].to_numpy(), table["recordings"])
    return table.assign(verdict=found)


def costs_of(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean costs of a clip by method, from rows that repeat them for each phrase."""
    known = scores.dropna(subset="seconds").drop_duplicates(["clip", "method"])
    return known.groupby("method", sort=False)[list(COSTS)].mean()


def _kinds(part: pd.DataFrame) -> list[tuple[pd.DataFrame, list[str]]]:
    """Return the rows of a method with the scores of phrases; and a row a clip with those of whole clips."""
    part = part.reindex(columns=[*KEY, *ALL])
    clips = part.drop_duplicates("clip").assign(label="", source="")
    return [(part[list(KEY) + list(SCORES)], list(SCORES)), (clips[list(KEY) + list(FAITHFUL)], list(FAITHFUL))]


def _intervals(rows: pd.DataFrame, values: np.ndarray, seed: int) -> list[dict[str, float]]:
    """Return the mean of each column, the ends of its interval, its p-value against 0, and counts."""
    cases = (~np.isnan(values)).sum(axis=0)
    means = known_means(values)
    if len(rows) < 2:
        undefined = dict.fromkeys(("low", "high", "p"), np.nan)
        return [
            {"cases": int(count), "value": float(mean), **undefined, "recordings": int(count)}
            for count, mean in zip(cases, means, strict=True)
        ]
    # Where the source of a sound is not known, as in generated clips, it is the clip.
    sources = rows["source"].where(rows["source"].fillna("") != "", rows["clip"]).factorize()[0]
    bootstrap = Bootstrap(sources, RESAMPLES, seed, clips=rows["clip"].factorize()[0])
    replicates, clusters = bootstrap.means(values), bootstrap.clusters(values)
    low, high = interval(replicates, clusters)
    p = p_values(means, replicates, clusters)
    return [
        {
            "cases": int(cases[at]), "value": float(means[at]), "low": float(low[at]), "high": float(high[at]),
            "p": float(p[at]), "recordings": int(clusters[at]),
        }
        for at in range(values.shape[1])
    ]  # fmt: skip
