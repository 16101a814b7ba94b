"""Write the results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from harness import Bar, Study

from sweep_parts.figures import LABELS

NOTE = (
    "The listener knows ten sounds and was trained by this project: its FD, KAD, IS and KL compare settings with "
    "each other, and do not compare with papers. FD of so few clips is biased upwards, alike at every setting; "
    "KAD is unbiased. KL is of a generation and the real scene whose caption is its prompt. A phrase is scored if "
    "its sound is heard, but not all the time; where little is heard, few phrases are scored, and the alignment "
    "is of those."
)


def write_summary(study: Study, cells: pd.DataFrame, correlations: pd.DataFrame, bars: Sequence[Bar]) -> None:
    """Write ``README.md`` and ``bars.csv``."""
    s = study.content["settings"]
    text = (
        f"Model `{s['model']}`, {s['clips']} prompts of fold {s['fold']}, each with the same noise at every "
        f"setting; guidance within {s['guidance_interval']} of the timesteps. Compared with {s['reference']} real "
        f"scenes of the fold and those of the prompts. Seed {s['seed']}."
    )
    lines = ["## Rank correlation of alignment with quality", "", *_correlations(correlations), ""]
    lines += ["![quality against alignment](alignment-mean.png)", "", "## Every setting", ""]
    lines += [*_cells(cells), "", "![heat maps](heatmaps.png)", ""]
    end = (
        "Above 0, settings whose maps align better are better. Intervals are 95 %, over prompts. *Guidance "
        "scales* is the mean over numbers of steps of the correlation over guidance scales, *steps* the other way "
        "round."
    )
    study.page("Do settings that align better sound better?", [text, NOTE], bars, lines, end)


def _correlations(found: pd.DataFrame) -> list[str]:
    overs = list(dict.fromkeys(found["over"]))
    lines = ["| readout | quality | " + " | ".join(f"over {over}" for over in overs) + " |"]
    lines.append("|---" * (2 + len(overs)) + "|")
    for (readout, quality), rows in found.groupby(["readout", "quality"], sort=False):
        cells = [
            "" if pd.isna(row["spearman"]) else f"{row['spearman']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
            for row in rows.to_dict("records")
        ]
        lines.append(f"| {readout} | {LABELS[str(quality)]} | " + " | ".join(cells) + " |")
    return lines


def _cells(cells: pd.DataFrame) -> list[str]:
    names = [name for name in LABELS if name in cells]
    lines = ["| guidance | steps | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for row in cells.to_dict("records"):
        values = ["" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in names]
        lines.append(f"| {row['scale']:g} | {row['steps']} | " + " | ".join(values) + " |")
    return lines
