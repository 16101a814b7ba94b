"""Means with intervals over cases, targets, figures and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from harness import Bar, Estimate, Study, save_figure

from attnviz.editing.measures import monotone
from editing_parts.prompting import EDIT, REGENERATE, SDEDIT

Tables = Mapping[str, pd.DataFrame]

# The cells of a word also contain other sounds, which may become louder, so their level has no target.
_WEIGHED = {
    "loudness": ("the loudness of what is heard as the word", ">= 0.8"),
    "probability": ("the listener's probability", ">= 0.8"),
    "level": ("the level of all that is where the source has the word", ""),
}


def judge(tables: Tables, resamples: int, seed: int) -> list[Bar]:
    """Compare the measured tables with every target."""

    def estimate(values: Sequence[float] | pd.Series) -> Estimate:
        return Estimate.mean(values, resamples, seed)

    bars = []
    for part in ("swap", "refine"):
        table = tables.get(part)
        names = [f"{part}: the new word is heard", f"{part}: nearer to the source than regeneration, nats"]
        if table is None:
            bars += [Bar.of(name, "") for name in names]
            continue
        heard = estimate(table.loc[table["method"] == EDIT, "new heard"].astype(float))
        wide = table.pivot(index="case", columns="method", values="mel distance")
        nearer = estimate(wide[REGENERATE] - wide[EDIT])
        bars.append(Bar.of(names[0], ">= 0.75" if part == "swap" else "", str(heard), heard.value >= 0.75))
        bars.append(Bar.of(names[1], "interval above 0" if part == "swap" else "", str(nearer), nearer.low > 0))
    name, table = "command line at its defaults: the new word is heard", tables.get("command")
    if table is None:
        bars.append(Bar.of(name, ">= 0.75"))
    else:
        heard = estimate(table["new heard"].astype(float))
        bars.append(Bar.of(name, ">= 0.75", str(heard), heard.value >= 0.75))
    table = tables.get("reweight")
    for column, (what, wanted) in _WEIGHED.items():
        name = f"reweight: Spearman correlation of {what} with the word's weight"
        if table is None:
            bars.append(Bar.of(name, wanted))
            continue
        found = estimate([monotone(rows["weight"], rows[column]) for _, rows in table.groupby("case")])
        bars.append(Bar.of(name, wanted, str(found), found.value >= 0.8))
    table = tables.get("inpaint")
    if table is not None:
        bars += [
            Bar.of(f"inpaint: {name}", wanted, str(found), reached(found))
            for name, wanted, found, reached in (
                (
                    "the kept part is the original",
                    "= 1",
                    estimate(table["kept is the original"].astype(float)),
                    lambda e: e.value == 1,
                ),
                ("the seam, dB above its surroundings", "", estimate(table["seam, dB"]), bool),
                ("a hard cut, dB above its surroundings", "", estimate(table["hard cut, dB"]), bool),
                (
                    "the new sound is heard in the span",
                    ">= 0.6",
                    estimate(table["new heard in the span"].astype(float)),
                    lambda e: e.value >= 0.6,
                ),
            )
        ]
    return bars


def write_summary(study: Study, bars: Sequence[Bar], tables: Tables) -> None:
    """Write ``README.md`` and ``bars.csv``."""
    settings = study.content["settings"]
    text = (
        f"ESC-10's fold {settings['fold']}, {settings['prompts']} cases a kind, seed {settings['seed']}, the "
        f"model's own settings{_other_steps(settings)}: {_recommended(study.content)}. Means, in brackets their "
        "bootstrap intervals over cases (95 %), and the number of cases."
    )
    lines = []
    for part in ("swap", "refine"):
        if part in tables:
            lines += [f"## {part}", "", *_methods(tables[part], settings["resamples"], settings["seed"]), ""]
    study.page("Editing, measured", [text], bars, lines)


def _other_steps(settings: Mapping[str, Any]) -> str:
    return "" if settings["steps"] is None else f" but {settings['steps']} steps"


def _recommended(study: Mapping[str, Any]) -> str:
    purposes = study.get("recommended", {})
    return "; ".join(
        f"{purpose}: {', '.join(f'{name} {value}' for name, value in values.items())}"
        for purpose, values in purposes.items()
    )


def _methods(table: pd.DataFrame, resamples: int, seed: int) -> list[str]:
    columns = ["new heard", "new peak", "old heard", "old peak"]
    columns = [name for name in columns if name in table] + [
        "mel distance",
        "mel distance outside map",
        "agreement",
    ]
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for method in (EDIT, REGENERATE, SDEDIT):
        rows = table[table["method"] == method]
        cells = [str(Estimate.mean(rows[name].astype(float), resamples, seed)) for name in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def write_figures(folder: Path, tables: Tables, resamples: int, seed: int) -> None:
    """Draw the three editing methods, the re-weighting curves and the trade-off of style transfer."""
    edits = {part: tables[part] for part in ("swap", "refine") if part in tables}
    if edits:
        _draw_methods(folder / "methods.png", edits, resamples, seed)
    for part, by, columns in (
        (
            "reweight",
            "weight",
            {
                "loudness": "loudness of what is heard, dB",
                "probability": "listener probability",
                "level": "level of its cells, dB",
            },
        ),
        (
            "style",
            "strength",
            {"mel distance": "mel distance, nats", "new peak": "new sound", "old peak": "old sound"},
        ),
    ):
        if part not in tables:
            continue
        figure, panels = plt.subplots(1, len(columns), figsize=(4 * len(columns), 3.2), layout="constrained")
        for axes, (column, label) in zip(panels, columns.items(), strict=True):
            groups = [
                (value, Estimate.mean(rows[column], resamples, seed)) for value, rows in tables[part].groupby(by)
            ]
            at = [value for value, _ in groups]
            axes.fill_between(at, [e.low for _, e in groups], [e.high for _, e in groups], alpha=0.2)
            axes.plot(at, [e.value for _, e in groups], marker="o")
            axes.set_xlabel(by)
            axes.set_ylabel(label)
        save_figure(figure, folder / f"{part}.png")


def _draw_methods(path: Path, edits: Tables, resamples: int, seed: int) -> None:
    """Draw the rate of the new sound and the change of the rest, by method."""
    columns = {
        "new heard": "new sound heard, share",
        "mel distance": "distance to the source\noutside the edit, nats",
        "agreement": "listener's agreement\non the sound that stays",
    }
    figure, panels = plt.subplots(1, len(columns), figsize=(10, 3.2), layout="constrained")
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for offset, (part, table) in zip((-0.1, 0.1), edits.items(), strict=False):
            found = [
                Estimate.mean(table.loc[table["method"] == method, column].astype(float), resamples, seed)
                for method in (EDIT, REGENERATE, SDEDIT)
            ]
            means = np.array([one.value for one in found])
            ends = np.array([[one.value - one.low for one in found], [one.high - one.value for one in found]])
            axes.errorbar(np.arange(3) + offset, means, yerr=ends, fmt="o", capsize=3, label=part)
        axes.set_xticks(range(3), (EDIT.replace("-to-", "-\nto-"), REGENERATE, SDEDIT))
        axes.set_xlim(-0.5, 2.5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    panels[0].legend(frameon=False)
    save_figure(figure, path)
