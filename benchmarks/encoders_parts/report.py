"""Write the results as Markdown, with figures."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from harness import Study, save_figure
from matplotlib.axes import Axes

SHOWN = {
    "right": "asked classes are the strongest",
    "judged right": "second judge, one sound",
    "in order": '"X, then Y" in this order',
    "right, paraphrase": "asked classes, other words",
    "right, reordered": "asked classes, other order of words",
    "right, annotated": "asked classes, annotators' style",
    "scenes auc": "ROC-AUC of the maps, scenes",
    "generated auc": "ROC-AUC of the maps, generated",
    "scenes energy": "ROC-AUC of the clip's energy, scenes",
    "FD-listener": "FD-listener (lower is better)",
    "KL-softmax-listener": "KL-listener, nats (lower is better)",
    "seconds": "seconds a clip",
}
NOTE = (
    "All maps are scored in columns of 160 ms, averaged over frequency where they have one; scores in their own "
    "columns are in `models.csv`. The listener knows ten sounds and was trained by this project: its FD and KL "
    "compare these models with each other, and do not compare with papers. Intervals are 95 %, over prompts and "
    "scenes."
)


def write_report(study: Study, models: pd.DataFrame, differences: pd.DataFrame, encoders: pd.DataFrame) -> None:
    """Write ``README.md`` and the figures."""
    s = study.content["settings"]
    text = f"{s['prompts']} prompts and {s['scenes']} scenes of fold {s['fold']}, the same for all models. {NOTE}"
    lines = ["## Models", "", *_models(models), "", "![models](models.png)", ""]
    if not differences.empty:
        against = differences["against"].iloc[0]
        lines += [f"## Differences from {against}", "", *_differences(differences), ""]
    lines += ["## Which encoder's keys hold the attention", "", *_encoders(encoders), ""]
    lines += ["![encoders](encoders.png)", ""]
    study.page("Text encoders compared", [text], (), lines)
    save_figure(_model_figure(models), study.folder / "models.png")
    save_figure(_encoder_figure(encoders), study.folder / "encoders.png")


def _text(row: dict[str, object], name: str) -> str:
    value = row.get(name)
    if value is None or pd.isna(value):
        return ""
    low, high = row.get(f"{name} low"), row.get(f"{name} high")
    ends = "" if low is None or pd.isna(low) else f" [{low:.3g}, {high:.3g}]"
    return f"{value:.3g}{ends}"


def _models(models: pd.DataFrame) -> list[str]:
    rows = models.to_dict("records")
    lines = ["| | " + " | ".join(str(row["model"]) for row in rows) + " |", "|---" * (1 + len(rows)) + "|"]
    lines.append("| encoders | " + " | ".join(str(row["encoders"]) for row in rows) + " |")
    lines.append(
        "| weights that generate, million | " + " | ".join(f"{row['weights'] / 1e6:.2f}" for row in rows) + " |"
    )
    lines += [
        f"| {label} | " + " | ".join(_text(row, name) for row in rows) + " |" for name, label in SHOWN.items()
    ]
    return lines


def _differences(table: pd.DataFrame) -> list[str]:
    lines = ["| model | measure | difference | verdict |", "|---|---|---|---|"]
    for row in table.to_dict("records"):
        if not pd.isna(row["difference"]):
            ends = "" if pd.isna(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
            lines.append(
                f"| {row['model']} | {row['measure']} | {row['difference']:+.3f}{ends} | {row['verdict']} |"
            )
    return lines


def _encoders(table: pd.DataFrame) -> list[str]:
    names = ("share of all", "share of words", "auc")
    lines = ["| model | encoder | of all attention | of the attention to words | ROC-AUC of its own tokens |"]
    lines.append("|---|---|---|---|---|")
    for row in table.to_dict("records"):
        lines.append(f"| {row['model']} | {row['encoder']} | " + " | ".join(_text(row, n) for n in names) + " |")
    return lines


def _model_figure(models: pd.DataFrame) -> plt.Figure:
    shown = [name for name in SHOWN if name in models and models[name].notna().any()]
    columns = 3
    rows = -(-len(shown) // columns)
    height = 0.8 + 0.28 * len(models)
    figure, panels = plt.subplots(
        rows, columns, figsize=(13, height * rows), layout="constrained", sharey=True, squeeze=False
    )
    for ax, name in zip(panels.flat, shown, strict=False):
        _points(ax, models, name)
        ax.set_title(SHOWN[name], fontsize=10)
    for ax in panels.flat[len(shown) :]:
        ax.set_visible(False)
    panels[0, 0].invert_yaxis()  # shared by all panels
    return figure


def _points(ax: Axes, table: pd.DataFrame, name: str) -> None:
    for place, row in enumerate(table.to_dict("records")):
        if pd.isna(row[name]):
            continue
        if f"{name} low" in row and not pd.isna(row[f"{name} low"]):
            ax.plot([row[f"{name} low"], row[f"{name} high"]], [place, place], color="0.6", lw=2)
        ax.plot(row[name], place, "o", color="C0")
    ax.set_yticks(range(len(table)), table["model"])
    ax.grid(axis="x", alpha=0.3)


def _encoder_figure(table: pd.DataFrame) -> plt.Figure:
    """Draw the encoders of all models on the same axes: share of the attention against alignment."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for number, kind in enumerate(dict.fromkeys(table["encoder"])):
        part = table[table["encoder"] == kind]
        left.plot(part["share of words"], part["auc"], "o", color=f"C{number}", label=kind)
        for row in part.to_dict("records"):
            left.annotate(
                row["model"], (row["share of words"], row["auc"]), (4, 4), textcoords="offset points", fontsize=8
            )
    left.set_xlabel("share of the attention to words")
    left.set_ylabel("ROC-AUC of its own tokens, scenes")
    left.legend()
    names = list(dict.fromkeys(table["model"]))
    for place, name in enumerate(names):
        start = 0.0
        for row in table[table["model"] == name].to_dict("records"):
            color = f"C{list(dict.fromkeys(table['encoder'])).index(row['encoder'])}"
            right.barh(place, row["share of all"], left=start, color=color)
            start += row["share of all"]
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set_xlabel("share of all attention")
    return figure
