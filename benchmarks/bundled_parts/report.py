"""Write the results as Markdown and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from harness import Bar, Study, save_figure

_CURVES_BESIDE = 3
_SEEN = (
    "No part was trained on fold 4, but it is seen by earlier choices: earlier versions of the model were "
    "measured on it, and what was chosen later knew how they had fared."
)


def write_summary(study: Study, bars: Sequence[Bar], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write ``README.md`` and ``bars.csv``."""
    settings = study.content["settings"]
    text = (
        f"Scenes and prompts of ESC-10's fold {settings['fold']}, seed {settings['seed']}: "
        f"{settings['scenes']} scenes, "
        f"{settings['prompts']} prompts x {settings['seeds']} seeds, {settings['steps']} steps, guidance "
        f"{settings['guidance']:g} within {settings['guidance_interval']} of the timesteps. "
        f"Layers and timesteps are chosen on fold {settings['choosing_fold']}."
    )
    lines = []
    for part in ("listener", "vae", "vocoder"):
        if part in tables:
            lines += [f"## {part}", "", "| | |", "|---|---|"]
            lines += [f"| {row.name} | {row.value:.3f} |" for row in tables[part].itertuples(index=False)]
            lines += [""]
    if "levels" in tables and "scene_levels" in tables:
        lines += _by_level(tables["levels"], tables["scene_levels"])
    if "generation" in tables:
        lines += _by_class(tables["generation"])
    study.page("The bundled model, measured", [text, *([_SEEN] if settings["fold"] == 4 else [])], bars, lines)


def _by_level(levels: pd.DataFrame, scenes: pd.DataFrame) -> list[str]:
    """Return medians of levels, by class and guidance scale."""
    medians = levels.pivot_table(index="class", columns="scale", values="level", aggfunc="median", sort=False)
    usual = scenes.groupby("class")["level"].median()
    lines = [
        "## levels",
        "",
        "Median RMS of one-sound generations in dB relative to full scale, by guidance scale.",
        "",
        "| class | scenes | " + " | ".join(str(scale) for scale in medians.columns) + " |",
        "|---" * (2 + len(medians.columns)) + "|",
    ]
    for sound, row in medians.iterrows():
        lines.append(f"| {sound} | {usual[sound]:.1f} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    return [*lines, ""]


def _by_class(generation: pd.DataFrame) -> list[str]:
    lines = ["## generation by class", "", "| class | asked | among the strongest |", "|---|---|---|"]
    asked = generation.assign(
        sound=generation["classes"].str.split(" + ", regex=False),
        got=generation["heard"].str.split(" + ", regex=False),
    ).explode("sound")
    asked["found"] = [sound in got for sound, got in zip(asked["sound"], asked["got"], strict=True)]
    for sound, rows in asked.groupby("sound"):
        lines.append(f"| {sound} | {len(rows)} | {rows['found'].mean():.0%} |")
    return [*lines, ""]


def write_figures(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Draw the AUC of every measured layer and timestep."""
    for part, title in (("scenes", "Real scenes"), ("generated", "During generation")):
        if part not in tables or tables[part]["auc"].isna().all():
            continue
        rows = tables[part].copy()
        rows["timestep"] = rows["timestep"].map(lambda t: "all" if pd.isna(t) else f"{t:g}")
        order = sorted(rows["timestep"].unique(), key=lambda t: float("inf") if t == "all" else float(t))
        grid = rows.pivot_table(index="layer", columns="timestep", values="auc", sort=False)[order]
        figure, axes = plt.subplots(
            figsize=(1.6 + 0.9 * len(order) + 3, 0.45 * len(grid) + 1.4), layout="constrained"
        )
        image = axes.imshow(grid.values, vmin=0.3, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(order)), order)
        axes.set_yticks(range(len(grid)), grid.index)
        axes.set_xlabel("timestep")
        axes.set_ylabel("layer")
        axes.set_title(f"{title}: frame ROC-AUC of words")
        for i, values in enumerate(grid.values):
            for j, value in enumerate(values):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if value < 0.75 else "k")
        figure.colorbar(image, label="ROC-AUC")
        save_figure(figure, folder / f"{part}.png")


def write_quality(folder: Path, tables: Mapping[str, pd.DataFrame], fold: int) -> None:
    """Write ``quality.json`` of a listener's folder: its scores on unknown recordings."""
    if "listener" not in tables:
        return
    values = dict(zip(tables["listener"]["name"], tables["listener"]["value"], strict=True))
    quality = {
        "fold": fold,
        "frame_map": round(values["frame mAP"], 4),
        "psds1": round(values["PSDS1"], 4),
        "ap": {name.removeprefix("ap "): round(value, 4) for name, value in values.items() if name[:3] == "ap "},
    }
    (folder / "quality.json").write_text(json.dumps(quality, indent=2) + "\n", encoding="utf-8")


def write_curves(folder: Path, training: Path) -> None:
    """Draw the training curves of a checkpoint (``training/PART.csv``), with one panel per part."""
    logs = {path.stem: pd.read_csv(path) for path in sorted(training.glob("*.csv"))}
    if not logs:
        return
    columns = min(_CURVES_BESIDE, len(logs))
    lines = -(-len(logs) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(5 * columns, 3.4 * lines), layout="constrained", squeeze=False
    )
    for axes in panels.flat[len(logs) :]:
        axes.set_visible(False)
    for axes, (part, log) in zip(panels.flat, logs.items(), strict=False):
        for name, rows in log[log["name"] != "learning_rate"].groupby("name"):
            smooth = rows["value"].rolling(max(1, len(rows) // 100), min_periods=1).mean()
            axes.plot(rows["step"], smooth, label=name)
        axes.set_yscale("log")
        axes.set_title(f"{part}: {log['step'].max()} steps, {log['seconds'].max() / 60:.0f} minutes")
        axes.set_xlabel("step")
        axes.set_ylabel("running mean")
        axes.legend()
    save_figure(figure, folder / "curves.png")
