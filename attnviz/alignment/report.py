"""Summaries of an alignment as text, for the terminal and for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnviz.alignment.comparing import DISCOVERY_RATE
from attnviz.alignment.pooling import ALL_SCORES, Pooled
from attnviz.alignment.reading import MAP

if TYPE_CHECKING:
    from attnviz.alignment.result import Alignment

NAMES = {
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "partial": "Pearson, given energy",
    "pointing": "pointing game",
    "onset_error": "onset error (s)",
    "onset_distance": "|onset error| (s)",
    "iou": "IoU (time x freq.)",
    "psds1": "PSDS1",
    "segment_f1": "segment F1",
}
"""Displayed names of the scores."""


_PERMUTED = {"clips": "exchanging maps between clips", "seeds": "flipping the signs of its maps' scores"}


def method_name(method: str) -> str:
    """Return the displayed name of a method."""
    return method.replace("_", " ")


def headline(result: Alignment) -> str:
    """Describe what was scored: phrases, clips, sources, readout and column width."""
    phrases, clips = len(result.phrases), len({phrase.events.clip for phrase in result.phrases})
    widths = " and ".join(f"{width:g}" for width in result.column_ms) or "no"
    what = f"{_number(phrases, 'phrase')} of {_number(clips, 'clip')}"
    return f"{what}, readout {result.readout!r}, columns of {widths} ms"


def missing(result: Alignment) -> str:
    """Describe how many phrases and events were not scored, and why; empty if all were scored."""
    counts = {name: number for name, number in result.counts.items() if name not in ("phrases", "scored")}
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)


def score_rows(pooled: Pooled) -> pd.DataFrame:
    """Format the pooled scores as text, with a row per available score and a column per method."""
    rows = [row for row in _records(pooled.scores) if not np.isnan(row["value"])]
    cells = {(row["score"], row["method"]): estimate(row["value"], row["low"], row["high"]) for row in rows}
    methods = list(dict.fromkeys(pooled.scores["method"]))
    scores = [score for score in ALL_SCORES if any(row["score"] == score for row in rows)]
    return pd.DataFrame(
        [[cells.get((score, method), "-") for method in methods] for score in scores],
        index=[NAMES[score] for score in scores],
        columns=[method_name(method) for method in methods],
    )


def verdict_lines(pooled: Pooled, score: str = "roc_auc") -> list[str]:
    """Describe the comparison of the map with every control."""
    rows = [row for row in _records(pooled.differences) if row["score"] == score and not np.isnan(row["value"])]
    return [
        f"{MAP} minus {method_name(row['control'])}: {NAMES[score]} "
        f"{estimate(row['value'], row['low'], row['high'], sign=True)}"
        f"{', ' + row['verdict'] if row['verdict'] else ''}"
        for row in rows
    ]


def chance_lines(pooled: Pooled, score: str = "roc_auc") -> list[str]:
    """Describe whether the pooled score of every method is at chance; empty without permutation intervals."""
    judged = pooled.scores[(pooled.scores["score"] == score) & pooled.scores["at_chance"].notna()]
    return [
        f"{method_name(row['method'])}: {'at chance' if row['at_chance'] else 'not at chance'}, {NAMES[score]} "
        f"{estimate(row['value'], row['permutation_low'], row['permutation_high'])} "
        f"by {_PERMUTED[row['permuted']]}"
        + ("" if np.isnan(row["exchanged"]) else f" (exchanged maps score {row['exchanged']:.3f})")
        for row in _records(judged)
    ]


def estimate(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """Format a value with its interval, if it has one."""
    form = "+.3f" if sign else ".3f"
    first, *ends = (f"{round(number, 3) + 0.0:{form}}" for number in (value, low, high))  # no "-0.000"
    return first if np.isnan([low, high]).any() else f"{first} [{', '.join(ends)}]"


def opening(result: Alignment) -> list[str]:
    """Describe what was scored, what was not, and the intervals."""
    lines = [headline(result)]
    silent = sum(phrase.energy is None for phrase in result.phrases)
    if silent:
        lines.append(f"{_number(silent, 'phrase')} without energy control: the maps have no spectrogram.")
    if left_out := missing(result):
        lines.append(f"Not scored, or cut: {left_out}.")
    if len({phrase.events.clip for phrase in result.phrases}) == 1:
        lines.append("No controls 'other clip' and 'order': both need at least two clips.")
    if not result.counts["scored"]:
        return [*lines, "No phrase could be scored."]
    sources = int(result.pooled.scores["sources"].max())
    if sources < 2:
        return [*lines, f"No intervals: the bootstrap resamples {result.unit}, and there is only one."]
    clips = len({phrase.events.clip for phrase in result.phrases if not phrase.undefined})
    over = f"{sources} {result.unit}" + (f" and {_number(clips, 'clip')}" if "source" in result.unit[:6] else "")
    return [*lines, f"95 % intervals: bootstrap over {over}."]


def verdicts(result: Alignment) -> list[str]:
    """Describe the map compared with every control, and every method compared with chance."""
    chance = chance_lines(result.pooled) or [
        "No permutation interval: it needs five clips, or six seeds of a map."
    ]
    number = result.pooled.comparisons
    judged = f"{_number(number, 'comparison')} with controls tested together: at most {DISCOVERY_RATE:.0%} of the"
    control = [f"{judged} verdicts are expected to be false (Benjamini-Hochberg)."] if number else []
    return [*verdict_lines(result.pooled), *control, *chance]


def text(result: Alignment) -> str:
    """Return the summary; see `Alignment.summary`."""
    lines = opening(result)
    if result.counts["scored"]:
        lines += ["", score_rows(result.pooled).to_string(), "", *verdicts(result)]
    return "\n".join(lines)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
