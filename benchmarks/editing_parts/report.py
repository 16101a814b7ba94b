"""Means with intervals over cases, targets, figures and a summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import Bootstrap, interval
from attnviz.editing.measures import monotone
from editing_parts.prompting import EDIT, REGENERATE, SDEDIT

Tables = Mapping[str, pd.DataFrame]

# The cells of a word also contain other sounds, which may become louder, so their level has no target.
_WEIGHED = {
    "loudness": ("the loudness of what is heard as the word", ">= 0.8"),
    "probability": ("the listener's probability", ">= 0.8"),
    "level": ("the level of all that is where the source has the word", ""),
}


@dataclass(frozen=True)
class Bar:
    """A target with its measured value and ``"reached"``, ``"missed"``, ``"reported"`` or a reason."""

    what: str
    wanted: str
    measured: str
    state: str


@dataclass(frozen=True)
class Estimate:
    """A mean over cases, its bootstrap interval, and the number of cases."""

    mean: float
    low: float
    high: float
    cases: int

    @classmethod
    def of(cls, values: Sequence[float] | pd.Series, resamples: int, seed: int) -> Estimate:
        """Estimate the mean of one value per case, ignoring undefined values."""
        known = np.asarray(values, dtype=float)
        known = known[~np.isnan(known)]
        if not len(known):
            return cls(np.nan, np.nan, np.nan, 0)
        units = np.arange(len(known))
        replicates = Bootstrap(units, resamples, seed).means(known[:, None])
        low, high = interval(replicates, np.array([len(known)]))
        return cls(float(known.mean()), float(low[0]), float(high[0]), len(known))

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}] ({self.cases})"


def judge(tables: Tables, resamples: int, seed: int) -> list[Bar]:
    """Compare the measured tables with every target."""

    def estimate(values: Sequence[float] | pd.Series) -> Estimate:
        return Estimate.of(values, resamples, seed)

    bars = []
    for part in ("swap", "refine"):
        table = tables.get(part)
        names = [f"{part}: the new word is heard", f"{part}: nearer to the source than regeneration, nats"]
        if table is None:
            bars += [Bar(name, "", "", "not measured") for name in names]
            continue
        heard = estimate(table.loc[table["method"] == EDIT, "new heard"].astype(float))
        wide = table.pivot(index="case", columns="method", values="mel distance")
        nearer = estimate(wide[REGENERATE] - wide[EDIT])
        bars.append(_bar(names[0], ">= 0.75" if part == "swap" else "", str(heard), heard.mean >= 0.75))
        bars.append(_bar(names[1], "interval above 0" if part == "swap" else "", str(nearer), nearer.low > 0))
    name, table = "command line at its defaults: the new word is heard", tables.get("command")
    if table is None:
        bars.append(Bar(name, ">= 0.75", "", "not measured"))
    else:
        heard = estimate(table["new heard"].astype(float))
        bars.append(_bar(name, ">= 0.75", str(heard), heard.mean >= 0.75))
    table = tables.get("reweight")
    for column, (what, wanted) in _WEIGHED.items():
        name = f"reweight: Spearman correlation of {what} with the word's weight"
        if table is None:
            bars.append(Bar(name, wanted, "", "not measured"))
            continue
        found = estimate([monotone(rows["weight"], rows[column]) for _, rows in table.groupby("case")])
        bars.append(_bar(name, wanted, str(found), found.mean >= 0.8))
    table = tables.get("inpaint")
    if table is not None:
        bars += [
            _bar(f"inpaint: {name}", wanted, str(found), reached(found))
            for name, wanted, found, reached in (
                (
                    "the kept part is the original",
                    "= 1",
                    estimate(table["kept is the original"].astype(float)),
                    lambda e: e.mean == 1,
                ),
                ("the seam, dB above its surroundings", "", estimate(table["seam, dB"]), bool),
                ("a hard cut, dB above its surroundings", "", estimate(table["hard cut, dB"]), bool),
                (
                    "the new sound is heard in the span",
                    ">= 0.6",
                    estimate(table["new heard in the span"].astype(float)),
                    lambda e: e.mean >= 0.6,
                ),
            )
        ]
    return bars


def _bar(what: str, wanted: str, measured: str, reached: bool) -> Bar:
    return Bar(
        what, wanted or "reported", measured, "reported" if not wanted else "reached" if reached else "missed"
    )


def write_summary(folder: Path, study: Mapping[str, Any], bars: Sequence[Bar], tables: Tables) -> None:
    """Write ``README.md`` and ``bars.csv``."""
    settings = study["settings"]
    resamples, seed = settings["resamples"], settings["seed"]
    lines = [
        "# Editing, measured",
        "",
        f"ESC-10's fold {settings['fold']}, {settings['prompts']} cases a kind, seed {settings['seed']}, the "
        f"model's own settings{_other_steps(settings)}: {_recommended(study)}. Means, in brackets their bootstrap "
        "intervals over cases (95 %), and the number of cases.",
        "",
        *table_lines(bars),
        "",
    ]
    for part in ("swap", "refine"):
        if part in tables:
            lines += [f"## {part}", "", *_methods(tables[part], resamples, seed), ""]
    lines += ["Machine and versions: `study.json`.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    (folder / "study.json").write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")
    pd.DataFrame([vars(bar) for bar in bars]).to_csv(folder / "bars.csv", index=False)


def _other_steps(settings: Mapping[str, Any]) -> str:
    return "" if settings["steps"] is None else f" but {settings['steps']} steps"


def _recommended(study: Mapping[str, Any]) -> str:
    purposes = study.get("recommended", {})
    return "; ".join(
        f"{purpose}: {', '.join(f'{name} {value}' for name, value in values.items())}"
        for purpose, values in purposes.items()
    )


def table_lines(bars: Sequence[Bar]) -> list[str]:
    """Return the targets as a Markdown table."""
    lines = ["| what | bar | measured | |", "|---|---|---|---|"]
    return lines + [f"| {bar.what} | {bar.wanted} | {bar.measured} | **{bar.state}** |" for bar in bars]


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
        cells = [str(Estimate.of(rows[name].astype(float), resamples, seed)) for name in columns]
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
                (value, Estimate.of(rows[column], resamples, seed)) for value, rows in tables[part].groupby(by)
            ]
            at = [value for value, _ in groups]
            axes.fill_between(at, [e.low for _, e in groups], [e.high for _, e in groups], alpha=0.2)
            axes.plot(at, [e.mean for _, e in groups], marker="o")
            axes.set_xlabel(by)
            axes.set_ylabel(label)
        figure.savefig(folder / f"{part}.png", dpi=150)
        plt.close(figure)


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
                Estimate.of(table.loc[table["method"] == method, column].astype(float), resamples, seed)
                for method in (EDIT, REGENERATE, SDEDIT)
            ]
            means = np.array([one.mean for one in found])
            ends = np.array([[one.mean - one.low for one in found], [one.high - one.mean for one in found]])
            axes.errorbar(np.arange(3) + offset, means, yerr=ends, fmt="o", capsize=3, label=part)
        axes.set_xticks(range(3), (EDIT.replace("-to-", "-\nto-"), REGENERATE, SDEDIT))
        axes.set_xlim(-0.5, 2.5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
