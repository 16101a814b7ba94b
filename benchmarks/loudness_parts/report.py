"""Write the tables as Markdown, and a figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from harness import Study, save_figure

_QUIET_DB = -50.0


def write_report(study: Study, steps: int) -> None:
    """Write ``README.md`` and ``loudness.png`` from the available tables."""
    tables = study.tables()
    text = (
        f"Levels are RMS of 10.24 s in dB relative to full scale; {steps} DDIM steps. Scenes and choices are of "
        "folds 1 to 3. Written by `python benchmarks/loudness.py --data data/esc10`."
    )
    sections = {"scenes": _scenes, "trajectory": _trajectory, "forced": _forced, "guidance": _guidance}
    lines = [line for name, write in sections.items() if name in tables for line in (*write(tables), "")]
    study.page("How loud the bundled model is, and why", [text], sections=lines)
    if {"scenes", "guidance"} <= tables.keys():
        save_figure(_drawn(tables), study.folder / "loudness.png")


def summary(guidance: pd.DataFrame, scenes: pd.DataFrame) -> pd.DataFrame:
    """Summarise levels relative to scenes and detected sounds by kind of guidance and scale.

    Columns: ``gap`` (median over generations of the level minus the median of the class's scenes), ``worst``
    (minimum over classes of its median), ``quiet`` (share below -50 dB), ``right`` (share in which the requested
    class is the strongest), ``generations``.
    """
    usual = scenes.groupby("class")["level"].median()
    rows = guidance.assign(
        gap=guidance["level"] - guidance["class"].map(usual),
        quiet=guidance["level"] < _QUIET_DB,
        right=guidance["heard"] == guidance["class"],
    )
    groups = rows.groupby(["guide", "scale"], sort=False)
    worst = rows.groupby(["guide", "scale", "class"])["gap"].median().groupby(["guide", "scale"]).min()
    return pd.DataFrame(
        {
            "gap": groups["gap"].median(),
            "worst": worst,
            "quiet": groups["quiet"].mean(),
            "right": groups["right"].mean(),
            "generations": groups.size(),
        }
    )


def _scenes(tables: dict[str, pd.DataFrame]) -> list[str]:
    rows = tables["scenes"]
    lines = [
        "## What vocoder and auto-encoder cost",
        "",
        "Medians over scenes of one sound. A loss is the level after less the level before.",
        "",
        "| class | level | vocoder | auto-encoder and vocoder | unguided generations, less scenes |",
        "|---|---|---|---|---|",
    ]
    free = _unguided(tables)
    for sound, each in rows.groupby("class", sort=False):
        medians = each["level"].median(), *((each[n] - each["level"]).median() for n in ("vocoder", "autoencoder"))
        last = f"{free[sound] - medians[0]:+.1f}" if sound in free else ""
        lines.append(f"| {sound} | {medians[0]:.1f} | {medians[1]:+.1f} | {medians[2]:+.1f} | {last} |")
    return lines


def _unguided(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    rows = tables.get("guidance")
    return {} if rows is None else rows[rows["scale"] == 1].groupby("class")["level"].median().to_dict()


def _trajectory(tables: dict[str, pd.DataFrame]) -> list[str]:
    rows = tables["trajectory"]
    usual = tables["scenes"].groupby("class")["brightness_autoencoder"].median() if "scenes" in tables else {}
    times = sorted(rows["timestep"].unique(), reverse=True)
    lines = [
        "## Brightness of the predictions on their way",
        "",
        "Mean of the decoded image in [0, 1]; the first column is the median of the class's scenes.",
        "",
        "| class | scale | scenes | " + " | ".join(f"t = {t}" for t in times) + " |",
        "|---" * (3 + len(times)) + "|",
    ]
    for (sound, scale), each in rows.groupby(["class", "scale"], sort=False):
        values = each.set_index("timestep")["brightness"]
        lines.append(
            f"| {sound} | {scale:g} | {usual.get(sound, np.nan):.3f} | "
            + " | ".join(f"{values[t]:.3f}" for t in times)
            + " |"
        )
    return lines


def _forced(tables: dict[str, pd.DataFrame]) -> list[str]:
    lines = [
        "## The mean, predicted of noised scenes",
        "",
        "Of the clean latents: error of a channel's mean (RMS over scenes and channels), and what of it is common "
        "to all scenes (bias). Means of scenes have a standard deviation of 0.28.",
        "",
        "| timestep | condition | loss | error of the mean | bias |",
        "|---|---|---|---|---|",
    ]
    for row in tables["forced"].itertuples(index=False):
        condition = "caption" if row.conditional else "none"
        lines.append(f"| {row.timestep} | {condition} | {row.loss:.3f} | {row.mean_error:.3f} | {row.bias:.3f} |")
    return lines


def _guidance(tables: dict[str, pd.DataFrame]) -> list[str]:
    if "scenes" not in tables:
        return []
    lines = [
        "## Guidance",
        "",
        "Gap: level less the median of the class's scenes, median over generations, and of the class where it is "
        "lowest. Quiet: below -50 dB. Right: the asked class is the strongest to the bundled listener.",
        "",
        "| guidance | scale | gap, dB | lowest class, dB | quiet | right | generations |",
        "|---|---|---|---|---|---|---|",
    ]
    found = summary(tables["guidance"], tables["scenes"]).sort_index(level=1, sort_remaining=False)
    for (guide, scale), row in found.iterrows():
        lines.append(
            f"| {guide} | {scale:g} | {row['gap']:+.1f} | {row['worst']:+.1f} | {row['quiet']:.0%} | "
            f"{row['right']:.0%} | {row['generations']:.0f} |"
        )
    return lines


def _drawn(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    found = summary(tables["guidance"], tables["scenes"]).reset_index()
    unguided = found[found["scale"] == 1]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for guide, guided in found[found["scale"] != 1].groupby("guide", sort=False):
        rows = pd.concat([unguided, guided]).sort_values("scale")
        panels[0].plot(rows["scale"], rows["gap"], marker="o", label=guide)
        panels[1].plot(rows["scale"], rows["right"], marker="o", label=guide)
    panels[0].axhline(0, color="0.6", linewidth=0.8)
    panels[0].set_ylabel("median level less scenes of the class (dB)")
    panels[1].set_ylabel("asked class is the strongest")
    panels[1].set_ylim(0, 1.02)
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks(sorted(found["scale"].unique()), [f"{s:g}" for s in sorted(found["scale"].unique())])
        axes.minorticks_off()
        axes.set_xlabel("guidance scale")
    panels[0].legend(frameon=False)
    return figure
