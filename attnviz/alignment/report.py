"""Summaries of an alignment as text, for the terminal and for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnviz.alignment.comparing import DISCOVERY_RATE
from attnviz.alignment.pooling import ALL_SCORES, Pooled
from attnviz.alignment.reading import MAP
from attnviz.events.origin import LISTENER, ORIGIN
from attnviz.wording import counted

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

MEANINGS = {
    "roc_auc": "chance that a column with the sound has more attention than one without; 0.5 is chance",
    "average_precision": "mean precision over all thresholds of attention; chance is the value of 'constant'",
    "pearson": "correlation with the fraction of each column that the sound covers, -1 to 1; 0 is chance",
    "spearman": "the correlation of the ranks",
    "partial": "the correlation that the energy of the clip does not explain",
    "pointing": "1 if the sound is there when attention is highest, otherwise 0; chance as 'constant'",
    "onset_error": "onset of the curve minus onset of the sound; negative is too early, 0 is best",
    "onset_distance": "its absolute value; 0 is best",
    "iou": "overlap in time and frequency with the sound's own cells, 0 to 1",
    "psds1": "detected events at up to 100 false detections per hour; 0 is common for one clip, where a single "
    "false detection is more than that",
    "segment_f1": "F1 of segments of 1 s, above half of the curve's range",
}
"""What the scores mean, for readers of the summary. 1 is best unless stated."""

_CONTROLS = {
    "constant": "the same attention everywhere",
    "energy": "the energy of the spectrogram in each column, without the model",
    "reversed": "the map reversed in time",
    "other_clip": "the map of a word of another clip",
    "order": "when sounds at the same place in other captions usually occur",
}
_MOST_NAMED = 5


_PERMUTED = {"clips": "exchanging maps between clips", "seeds": "flipping the signs of its maps' scores"}


def method_name(method: str) -> str:
    """Return the displayed name of a method."""
    return method.replace("_", " ")


def headline(result: Alignment) -> str:
    """Describe what was scored: phrases, clips, sources, readout and column width."""
    phrases, clips = len(result.phrases), len({phrase.events.clip for phrase in result.phrases})
    widths = " and ".join(f"{round(width, 1):g}" for width in result.column_ms) or "no"
    what = f"{counted(phrases, 'phrase')} of {counted(clips, 'clip')}"
    return f"{what}, readout {_readout(result.readout)}, columns of {widths} ms"


def _readout(name: str) -> str:
    """Describe a readout by its name; that of a fitted readout ends with the digest of its weights."""
    kind, _, weights = name.partition(" ")
    return f"'{kind}' (weights {weights})" if kind == "fitted" and weights else repr(name)


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
        + ("" if np.isnan(row["exchanged"]) else f" (exchanged maps score {row['exchanged']:.3f}{_no_less(row)})")
        for row in _records(judged)
    ]


def _no_less(row: dict[str, Any]) -> str:
    return ", no less: the score is not of this clip" if row["exchanged"] >= row["value"] else ""


def estimate(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """Format a value with its interval, if it has one."""
    form = "+.3f" if sign else ".3f"
    first, *ends = (f"{round(number, 3) + 0.0:{form}}" for number in (value, low, high))  # no "-0.000"
    return first if np.isnan([low, high]).any() else f"{first} [{', '.join(ends)}]"


def opening(result: Alignment) -> list[str]:
    """Describe what was scored, what was not, and the intervals."""
    lines = [headline(result)]
    if said := origin_line(result):
        lines.append(said)
    silent = sum(phrase.energy is None for phrase in result.phrases)
    if silent:
        lines.append(f"{counted(silent, 'phrase')} without energy control: the maps have no spectrogram.")
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
    over = f"{sources} {result.unit}" + (f" and {counted(clips, 'clip')}" if "source" in result.unit[:6] else "")
    return [*lines, f"95 % intervals: bootstrap over {over}."]


def verdicts(result: Alignment) -> list[str]:
    """Describe the map compared with every control, and every method compared with chance."""
    chance = chance_lines(result.pooled) or [
        "No permutation interval: it needs five clips, or six seeds of a map."
    ]
    number = result.pooled.comparisons
    judged = f"{counted(number, 'comparison')} with controls tested together: at most {DISCOVERY_RATE:.0%} of the"
    control = [f"{judged} verdicts are expected to be false (Benjamini-Hochberg)."] if number else []
    return [*verdict_lines(result.pooled), *control, *chance, *control_lines(result)]


def origin_line(result: Alignment) -> str:
    """Say if events were heard by the listener; empty if all were given."""
    by_listener = sum(LISTENER in phrase.events.origin for phrase in result.phrases)
    if not by_listener:
        return ""
    some = "" if by_listener == len(result.phrases) else f" of {counted(by_listener, 'phrase')}"
    return f"The events{some} were heard by the listener, which can be wrong; they are not annotations."


def scored_against(table: pd.DataFrame) -> str:
    """Return a note for the name of a score, " (events heard by the listener)"; empty if all events were given."""
    if ORIGIN not in table.columns:
        return ""
    by_listener = table[ORIGIN].astype(str).str.contains(LISTENER)
    return f" ({'' if by_listener.all() else 'some '}events heard by the listener)" if by_listener.any() else ""


def phrase_names(table: pd.DataFrame) -> pd.Series:
    """Return the displayed name of the phrase of each row: its text, or its label in tables of older versions."""
    return table["text" if "text" in table.columns else "label"].astype(str)


def scored_maps(table: pd.DataFrame) -> tuple[list[str], list[float]]:
    """Return the readouts and the widths of columns in ms of a table; none if an older version wrote it."""
    readouts = table["readout"].dropna().astype(str).unique().tolist() if "readout" in table.columns else []
    if "column_ms" not in table.columns:
        return readouts, []
    widths = pd.to_numeric(table["column_ms"], "coerce").dropna().round(6)
    return readouts, sorted(map(float, widths.unique()))


def control_lines(result: Alignment, score: str = "roc_auc") -> list[str]:
    """Say in one sentence each if a control scores at least as high as the map, pooled or for single phrases."""
    scores = result.pooled.scores
    pooled = scores[scores["score"] == score].set_index("method")["value"]
    equal = [(name, pooled[name]) for name in pooled.index if name != MAP and pooled[name] >= pooled[MAP]]
    lines = []
    if equal:
        named = ", ".join(f"{method_name(str(name))} {value:.3f}" for name, value in equal)
        lines.append(
            f"A control scores at least as high as the map ({NAMES[score]} {pooled[MAP]:.3f}; {named}), so the "
            "score does not show that words were attended to when they sound."
        )
    means = result.table.pivot_table(index="phrase", columns="method", values=score, dropna=False)
    means = means[means[MAP].notna()]
    names = result.table.drop_duplicates("phrase").set_index("phrase")["text"].to_dict()
    beaten = {}
    for phrase, row in means.iterrows():
        better = [method_name(str(name)) for name in row.index if name != MAP and row[name] >= row[MAP]]
        if better:
            beaten[phrase] = f"{names[phrase]!r} ({', '.join(better)})"
    if beaten and len(means) > 1:
        more = f", and {len(beaten) - _MOST_NAMED} more" if len(beaten) > _MOST_NAMED else ""
        lines.append(
            f"A control scores at least as high as the map for {len(beaten)} of {counted(len(means), 'phrase')}: "
            f"{', '.join(list(beaten.values())[:_MOST_NAMED])}{more}."
        )
    return lines


def meaning_lines(pooled: Pooled) -> list[str]:
    """Explain the scores and controls of `score_rows`, one line each."""
    known = pooled.scores[pooled.scores["value"].notna()]
    scores = {NAMES[score]: MEANINGS[score] for score in ALL_SCORES if (known["score"] == score).any()}
    methods = list(dict.fromkeys(pooled.scores["method"]))
    controls = {method_name(name): _CONTROLS[name] for name in methods if name in _CONTROLS}
    width = max(map(len, (*scores, *controls)), default=0)
    return [
        "Scores (1 is best unless stated):",
        *(f"  {name:<{width}}  {meaning}" for name, meaning in scores.items()),
        "Controls:",
        *(f"  {name:<{width}}  {meaning}" for name, meaning in controls.items()),
    ]


def text(result: Alignment) -> str:
    """Return the summary; see `Alignment.summary`."""
    lines = opening(result)
    if result.counts["scored"]:
        lines += [
            "",
            score_rows(result.pooled).to_string(),
            "",
            *verdicts(result),
            "",
            *meaning_lines(result.pooled),
        ]
    return "\n".join(lines)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
