"""Tables, figures and the page of the study."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from harness import Estimate, Study
from harness.results import save_figure
from matplotlib.figure import Figure

from attnviz.alignment import Alignment
from attribution_parts.measuring import CONTROLS, COSTS
from attribution_parts.model_checks import CHECKS
from attribution_parts.tables import between, compared, costs_of, pooled

CLIPS = ("scenes", "prompts")
SHOWN = {
    "roc_auc": "ROC-AUC",
    "sharp_roc_auc": "ROC-AUC, 40 ms",
    "iou": "IoU",
    "sharp_iou": "IoU, 40 ms",
    "onset_distance": "onset (s)",
    "words": "words",
    "words_change": "words (change)",
    "infidelity": "infidelity",
}
"""Columns of the tables, by score."""
HEADLINE = ("roc_auc", "sharp_roc_auc", "words")
"""Scores in the figure, and whose comparisons are on the page."""

ABOUT = (
    "Each method explains the same clips at the same noise, and its maps are read with the mean over "
    "its layers: on their own columns, and in columns of 40 ms with the readout `sharp`, whose "
    "control is energy refined alike. *ROC-AUC*, *IoU* and *onset* compare the map of a phrase with "
    "when, and in which cells, its sound is audible. *words* asks the model instead: its words are "
    "deleted and inserted in the order of their maps, and the score is the area under the guidance "
    "energy as words are inserted less that as they are deleted (*change*: the same of how close the "
    "prediction is to that for the whole caption). Higher is better, and random orders have about 0. "
    "*infidelity* is captum's: lower is better; that of random orders is of scores that say nothing.",
    "Intervals are 95 %, over source recordings and clips. Verdicts: the interval of the paired "
    "difference excludes 0, and the p-value is at most 0.05 after Benjamini-Hochberg over all "
    "methods, scores and both bases of a part. Methods may have been measured on different numbers of "
    "clips (column *clips*): their means are not comparable, but the paired differences are, since "
    "each is over the clips of both.",
)


def write_report(study: Study, other: Study | None = None) -> None:
    """Write tables, figures and the page from the parts that are measured.

    Parameters
    ----------
    study : Study
    other : Study, optional
        The same study of another model.
    """
    settings = study.content["settings"]
    tables, others = study.tables(), {} if other is None else other.tables()
    sections: list[str] = []
    for part in CLIPS:
        if part in tables and len(tables[part]):
            sections += _part(study, part, tables[part], others.get(part))
    if "checks" in tables and len(tables["checks"]):
        sections += _checks(study, tables["checks"])
    timesteps = ", ".join(map(str, settings["timesteps"]))
    study.page(
        "Methods of attribution on one truth",
        [
            f"Is attention the explanation? Clips of fold {settings['fold']}, timesteps {timesteps}, "
            f"{settings['draws']} noise draws ({settings['word_draws']} for captions without some words). "
            "Written by `python benchmarks/attribution.py`.",
            *ABOUT,
        ],
        sections=sections,
    )


def _part(study: Study, part: str, scores: pd.DataFrame, others: pd.DataFrame | None) -> list[str]:
    seed = study.content["settings"]["seed"]
    means, comparisons, spent = pooled(scores, seed), compared(scores, seed), costs_of(scores)
    study.write(f"{part}/means", means, 5)
    study.write(f"{part}/comparisons", comparisons, 5)
    study.write(f"{part}/costs", spent.reset_index(), 5)
    save_figure(_figure(means), study.folder / part / "methods.png")
    lines = [f"## {part.capitalize()}", "", f"![Means of all methods]({part}/methods.png)", ""]
    lines += [*_means(means), "", *_verdicts(comparisons), "", *_costs(spent), ""]
    controls = _pooled_controls(study, part)
    if controls is not None:
        study.write(f"{part}/controls", controls, 5)
        lines += ["Controls of attention's maps, pooled over clips:", "", *_controls(controls), ""]
    if others is not None and len(others):
        pairs = between(scores, others, seed)
        study.write(f"{part}/other_model", pairs, 5)
        lines += ["Each method with this model, less the same with the other model:", "", *_verdicts(pairs), ""]
    return lines


def _pooled_controls(study: Study, part: str) -> pd.DataFrame | None:
    """Return the ROC-AUC of attention and of the controls of the study of alignment, pooled over clips."""
    found = sorted((study.folder / "pieces" / part / "alignment").glob("*"))
    if len(found) < 2:
        return None
    table = Alignment.concat(map(Alignment.load, found)).pool(n_resamples=500, n_permutations=500).scores
    return table[table["score"] == "roc_auc"]


def _means(means: pd.DataFrame) -> list[str]:
    found = means.set_index(["method", "score"])
    lines = [f"| method | clips | {' | '.join(SHOWN.values())} |", "|---|---|" + "---|" * len(SHOWN)]
    for name in found.index.get_level_values("method").unique():
        clips = int(found.loc[name]["clips"].max())
        lines.append(f"| {name} | {clips} | {' | '.join(_cell(found.loc[(name, score)]) for score in SHOWN)} |")
    return lines


def _verdicts(comparisons: pd.DataFrame) -> list[str]:
    lines = [
        f"| method | against | {' | '.join(SHOWN[score] for score in HEADLINE)} |",
        "|---|---|" + "---|" * len(HEADLINE),
    ]
    if comparisons.empty:
        return [*lines, ""]
    for (name, base), rows in comparisons.groupby(["method", "against"], sort=False):
        of = rows.set_index("score")
        cells = [_gain(of.loc[score]) for score in HEADLINE]
        lines.append(f"| {name} | {'the other model' if name == base else base} | {' | '.join(cells)} |")
    return lines


def _costs(spent: pd.DataFrame) -> list[str]:
    lines = [
        "| method | s a clip | s of computing | MiB | completeness error | efficiency error |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in spent.astype(float).iterrows():
        plain = [f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['memory_mib']:.0f}"]
        errors = ["" if np.isnan(row[error]) else f"{row[error]:.2g}" for error in COSTS[3:]]
        lines.append(f"| {name} | {' | '.join([*plain, *errors])} |")
    return lines


def _controls(table: pd.DataFrame) -> list[str]:
    lines = ["| map | ROC-AUC | permutation interval | exchanged between clips |", "|---|---|---|---|"]
    for _, row in table.iterrows():
        ends = [row[name] for name in ("permutation_low", "permutation_high")]
        known = not np.isnan(ends).any()
        permuted = f"[{ends[0]:.3f}, {ends[1]:.3f}]" if known else ""
        exchanged = f"{row['exchanged']:.3f}" if known else ""
        value = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"| {row['method']} | {value} | {permuted} | {exchanged} |")
    return lines


def _checks(study: Study, table: pd.DataFrame) -> list[str]:
    """Return the section of what costs many explanations."""
    table = table.reindex(columns=[*table.columns, *(check for check in CHECKS if check not in table)])
    lines = [
        "## Checks against the model",
        "",
        "*heads*: attention of the heads to a phrase is removed, in the order of the heads' maps; "
        "area of the least-first order less that of the most-first. *cells*: the text acts in some "
        "cells of the latents only, the generation is ended, and the listener is asked for the "
        "phrase's sound; area of insertion less that of deletion. Random heads, smooth random masks "
        "and masks of the clip's energy have the same areas. *sensitivity_max* is captum's: change of "
        "the maps if the clip changes by up to 2 % of its peak. The correlations are with maps of the "
        "same model with all weights shuffled: near 1, a method does not depend on what was learnt.",
        "",
        "| method | clips | heads | cells | sensitivity_max | Pearson, shuffled | Spearman, shuffled |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = []
    for name, part in table.groupby("method", sort=False):
        found = {check: Estimate.mean(part[check]) for check in CHECKS}
        rows += [{"method": name, "check": check, **vars(one)} for check, one in found.items()]
        cells = ["" if np.isnan(one.value) else one.text(".3f") for one in found.values()]
        lines.append(f"| {name} | {part['clip'].nunique()} | {' | '.join(cells)} |")
    study.write("checks_means", pd.DataFrame(rows), 5)
    return [*lines, ""]


def _cell(row: pd.Series) -> str:
    if np.isnan(row["mean"]):
        return ""
    return f"{row['mean']:.3f}" + ("" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]")


def _gain(row: pd.Series) -> str:
    if np.isnan(row["gain"]):
        return ""
    ends = "" if np.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}] {row['verdict']}"
    return f"{row['gain']:+.3f}{ends}"


def _figure(means: pd.DataFrame) -> Figure:
    names = list(dict.fromkeys(means["method"]))
    places = dict(zip(names, np.arange(len(names))[::-1], strict=True))
    figure, axes = plt.subplots(
        1, len(HEADLINE), figsize=(3.6 * len(HEADLINE), 0.3 * len(names) + 1.2), sharey=True, layout="constrained"
    )
    for ax, score in zip(axes, HEADLINE, strict=True):
        rows = means[means["score"] == score].dropna(subset="mean")
        errors = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - rows["mean"].to_numpy()))
        colours = np.where(rows["method"].isin(CONTROLS), "0.6", "tab:blue")
        at = [places[name] for name in rows["method"]]
        ax.errorbar(rows["mean"], at, xerr=errors, fmt="none", ecolor="0.6", capsize=3)
        ax.scatter(rows["mean"], at, c=colours, zorder=3)
        ax.axvline(0.5 if "auc" in score else 0.0, color="0.6", linewidth=1, linestyle=":")
        ax.set_xlabel(SHOWN[score])
    axes[0].set_yticks(list(places.values()), names)
    return figure
