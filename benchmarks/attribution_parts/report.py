"""Compare methods by paired differences, and write the table that says which localises best."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from harness import Study
from harness.results import save_figure
from matplotlib.figure import Figure

from attnviz.alignment.bootstrap import Bootstrap, interval
from attnviz.alignment.comparing import adjusted, p_values, verdicts
from attribution_parts.measuring import BASE, CONTROLS, COSTS, FITTED, KEY, SCORES

LOWER = ("onset_distance",)
RESAMPLES = 2000


def pooled(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the mean of each method and score, with 95 % intervals over recordings and clips."""
    rows = []
    for name, part in scores.groupby("method", sort=False):
        for score in SCORES:
            known = part.dropna(subset=score)
            low, high, _, _ = _interval(known, known[[score]].to_numpy(dtype=float), seed)
            mean = known[score].mean()
            rows.append(
                {"method": name, "score": score, "phrases": len(known), "mean": mean, "low": low, "high": high}
            )
    return pd.DataFrame(rows)


def compared(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the paired difference of each method from attention (mean, and fitted), with verdicts.

    Differences are signed so that positive is better. p-values of all comparisons are adjusted together
    (Benjamini-Hochberg).
    """
    rows = []
    methods = [name for name in scores["method"].unique() if name not in CONTROLS]
    for base in (BASE, f"{BASE}, {FITTED}"):
        for name in methods if base in methods else ():
            if name == base:
                continue
            pairs = scores[scores["method"] == name].merge(
                scores[scores["method"] == base], on=list(KEY), suffixes=("", "_base"), validate="one_to_one"
            )
            for score in SCORES:
                sign = -1 if score in LOWER else 1
                known = pairs.dropna(subset=[score, f"{score}_base"])
                gain = sign * (known[score] - known[f"{score}_base"]).to_numpy(dtype=float)[:, None]
                low, high, p, clusters = _interval(known, gain, seed)
                rows.append(
                    {
                        "method": name, "against": base, "score": score, "phrases": len(known),
                        "gain": gain.mean() if len(gain) else np.nan, "low": low, "high": high, "p": p,
                        "recordings": clusters,
                    }
                )  # fmt: skip
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["p_adjusted"] = adjusted(table["p"].to_numpy())
    table["verdict"] = verdicts(
        table["low"].to_numpy(), table["high"].to_numpy(), table["p_adjusted"].to_numpy(), table["recordings"]
    )
    return table


def _interval(rows: pd.DataFrame, values: np.ndarray, seed: int) -> tuple[float, float, float, int]:
    """Return the ends of the interval of a mean, its p-value against 0, and the number of recordings."""
    if len(rows) < 2:
        return np.nan, np.nan, np.nan, len(rows)
    sources, clips = (rows[name].factorize()[0] for name in ("source", "clip"))
    bootstrap = Bootstrap(sources, RESAMPLES, seed, clips=clips)
    replicates, clusters = bootstrap.means(values), bootstrap.clusters(values)
    low, high = interval(replicates, clusters)
    p = p_values(values.mean(axis=0), replicates, clusters)
    return float(low[0]), float(high[0]), float(p[0]), int(clusters[0])


def write_report(study: Study) -> None:
    """Write tables, figures and the page from the parts that are measured."""
    settings = study.content["settings"]
    sections = []
    for part, scores in study.tables().items():
        if part not in ("scenes", "prompts"):
            continue
        means, comparisons = pooled(scores, settings["seed"]), compared(scores, settings["seed"])
        spent = costs_of(scores)
        study.write(f"{part}/means", means, 5)
        study.write(f"{part}/comparisons", comparisons, 5)
        study.write(f"{part}/costs", spent.reset_index(), 5)
        save_figure(_figure(means), study.folder / part / "roc_auc.png")
        sections += [f"## {part.capitalize()}", "", *_tables(scores, means, comparisons, spent)]
    study.page(
        "Methods of attribution on one truth",
        [
            f"Clips of fold {settings['fold']}, timesteps {', '.join(map(str, settings['timesteps']))}, "
            f"{settings['draws']} noise draws, the same for all methods. Each is read with the mean over its "
            "layers, on its own columns. Intervals are 95 %, over source recordings and clips. Verdicts: the "
            "interval of the paired difference excludes 0, and the p-value is at most 0.05 after "
            "Benjamini-Hochberg over all comparisons and scores of a part. Written by `python "
            "benchmarks/attribution.py`.",
        ],
        sections=sections,
    )


def costs_of(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean costs of a clip by method, from rows that repeat them for each phrase."""
    known = scores.dropna(subset="seconds").drop_duplicates(["clip", "method"])
    return known.groupby("method", sort=False)[list(COSTS)].mean()


def _tables(
    scores: pd.DataFrame, means: pd.DataFrame, comparisons: pd.DataFrame, spent: pd.DataFrame
) -> list[str]:
    found = means.set_index(["method", "score"])
    lines = [
        f"{scores['clip'].nunique()} clips.",
        "",
        "| method | frame ROC-AUC | average precision | time-frequency IoU | onset (s) | s a clip | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in found.index.get_level_values("method").unique():
        cells = [_cell(found.loc[(name, score)]) for score in SCORES]
        costs = spent.loc[name] if name in spent.index else None
        more = ["", ""] if costs is None else [f"{costs['seconds']:.1f}", f"{costs['memory_mib']:.0f}"]
        lines.append(f"| {name} | {' | '.join([*cells, *more])} |")
    lines += ["", "| method | against | difference of frame ROC-AUC | verdict |", "|---|---|---|---|"]
    if not comparisons.empty:
        for _, row in comparisons[comparisons["score"] == "roc_auc"].iterrows():
            gain = f"{row['gain']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            lines.append(f"| {row['method']} | {row['against']} | {gain} | {row['verdict']} |")
    errors = spent[list(COSTS[2:])].dropna(how="all")
    if len(errors):
        lines += ["", "| method | completeness error | efficiency error |", "|---|---|---|"]
        for name, row in errors.iterrows():
            cells = ["" if np.isnan(value) else f"{value:.2g}" for value in row.astype(float)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(row: pd.Series) -> str:
    if np.isnan(row["mean"]):
        return "not defined"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _figure(means: pd.DataFrame) -> Figure:
    rows = means[means["score"] == "roc_auc"].dropna(subset="mean")
    figure, ax = plt.subplots(figsize=(6, 0.35 * len(rows) + 1), layout="constrained")
    places = np.arange(len(rows))[::-1]
    errors = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - rows["mean"].to_numpy()))
    ax.errorbar(rows["mean"], places, xerr=errors, fmt="o", color="tab:blue", capsize=3)
    ax.axvline(0.5, color="0.6", linewidth=1, linestyle=":")
    ax.set_yticks(places, rows["method"])
    ax.set_xlabel("frame ROC-AUC, 95 % interval")
    return figure
