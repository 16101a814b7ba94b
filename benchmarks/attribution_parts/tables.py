"""Compare methods by paired differences, with the false discovery rate controlled."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import Bootstrap, interval
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
        for score in ALL:
            known = _known(part, [score])
            low, high, _, _ = _interval(known, known[[score]].to_numpy(dtype=float), seed)
            rows.append(
                {
                    "method": name, "score": score, "cases": len(known), "clips": known["clip"].nunique(),
                    "mean": known[score].mean(), "low": low, "high": high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


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
    found = []
    for score in ALL:
        own, its = (
            _known(table[table["method"] == method], [score])[[*KEY, score]]
            for table, method in ((scores, name), (others, base))
        )
        pairs = own.merge(its, on=list(KEY), suffixes=("", "_base"), validate="one_to_one")
        sign = -1 if score in LOWER else 1
        gain = sign * (pairs[score] - pairs[f"{score}_base"]).to_numpy(dtype=float)[:, None]
        low, high, p, clusters = _interval(pairs, gain, seed)
        found.append(
            {
                "method": name, "against": base, "score": score, "cases": len(pairs),
                "gain": float(gain.mean()) if len(gain) else np.nan, "low": low, "high": high, "p": p,
                "recordings": clusters,
            }
        )  # fmt: skip
    return found


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


def _known(part: pd.DataFrame, score: list[str]) -> pd.DataFrame:
    """Return the rows with a defined score; of what is the same for a whole clip, one row a clip."""
    known = part.reindex(columns=[*KEY, *ALL]).dropna(subset=score)
    if score[0] in FAITHFUL:
        known = known.drop_duplicates("clip").assign(label="", source=known["clip"])
    return known


def _interval(rows: pd.DataFrame, values: np.ndarray, seed: int) -> tuple[float, float, float, int]:
    """Return the ends of the interval of a mean, its p-value against 0, and the number of recordings."""
    if len(rows) < 2:
        return np.nan, np.nan, np.nan, len(rows)
    # Where the source of a sound is not known, as in generated clips, it is the clip.
    sources = rows["source"].where(rows["source"].fillna("") != "", rows["clip"]).factorize()[0]
    bootstrap = Bootstrap(sources, RESAMPLES, seed, clips=rows["clip"].factorize()[0])
    replicates, clusters = bootstrap.means(values), bootstrap.clusters(values)
    low, high = interval(replicates, clusters)
    p = p_values(values.mean(axis=0), replicates, clusters)
    return float(low[0]), float(high[0]), float(p[0]), int(clusters[0])
