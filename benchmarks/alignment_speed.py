"""Time of scoring 10 000 phrases of 128 columns, each with its four controls.

score   every score of every phrase by every method, as in `Alignment.table`, without model or maps
single  ROC-AUC, average precision, Pearson's and Spearman's correlation of one curve at a time, with scikit-learn
        and scipy, on some of the same phrases, for comparison of time and values
pool    intervals, differences and exchanges of a study of 500 phrases

The parts alternate in every round. The results are in results/alignment_speed: one row per round and part, and a
summary.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
import scipy
import sklearn
from harness import environment, parser
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from attnviz.alignment import Alignment
from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents
from attnviz.audio import SpectrogramGrid
from attnviz.events import column_activity

LIMIT = 5.0  # seconds for 10 000 phrases of 128 columns
POOLED = 500
SINGLE = 200


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the results; return 0 if the limit is met or does not apply."""
    options = _parser().parse_args(arguments)
    if options.tiny:
        options.phrases, options.columns, options.rounds = 30, 24, 1
    phrases = make_phrases(options.phrases, options.columns, options.seed)
    parts: dict[str, Callable[[], object]] = {
        "score": lambda: Alignment(phrases, "mean").table,
        "single": lambda: one_at_a_time(phrases[:SINGLE]),
        "pool": lambda: Alignment(phrases[:POOLED], "mean").pool(),
    }
    worst = largest_difference(phrases[:SINGLE])
    rows = [
        {"round": number, "part": part, **_timed(work)}
        for number in range(options.rounds)
        for part, work in parts.items()
    ]
    table = pd.DataFrame(rows)
    summary = summarize(table, options.phrases, options.columns, worst)
    folder = options.out
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "rounds.csv", index=False, float_format="%.6g")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    medians = table.groupby("part", sort=False)[["seconds", "cpu_seconds"]].median()
    print(medians.round(3).to_string())
    print(f"a phrase, one at a time / all together: {summary['ratio']:.1f} (four of nine scores, map alone)")
    print(f"largest difference from scikit-learn and scipy: {worst:.1g}")
    state = str(summary["state"]).upper()
    print(f"{state:<13} {summary['bar']}: {summary['score_seconds']:.2f} s. Results: {folder}")
    return 1 if summary["state"] == "missed" else 0


def make_phrases(count: int, columns: int, seed: int) -> tuple[AlignedPhrase, ...]:
    """Create phrases of 10.24-s clips, three per clip, with recurring sources and noisy curves of the activity."""
    rng = np.random.default_rng(seed)
    grid = SpectrogramGrid()
    phrases = []
    for number in range(count):
        onset = rng.uniform(0.0, 7.0)
        times = np.array([[onset, onset + rng.uniform(0.3, 3.0)]])
        share = column_activity(times[:, 0], times[:, 1], grid, columns)
        curve = (0.3 * share + rng.random(columns)).astype(np.float32)
        clip, place = divmod(number, 3)
        events = PhraseEvents(f"{clip}.wav", "x", (place, place + 1), f"{number % 1500}", times, None, 0, 0)
        energy = 0.5 * share + rng.random(columns)
        width = grid.column_seconds(columns)
        phrases.append(AlignedPhrase(events, 0, grid.seconds, width, share, {"map": (curve,)}, energy))
    return tuple(phrases)


def one_at_a_time(phrases: tuple[AlignedPhrase, ...]) -> np.ndarray:
    """Score the maps of phrases with scikit-learn and scipy, ``(phrases, 4)``."""
    scores = []
    for phrase in phrases:
        curve = phrase.curves["map"][0].astype(np.float64)
        scores.append(
            [
                roc_auc_score(phrase.active, curve),
                average_precision_score(phrase.active, curve),
                stats.pearsonr(curve, phrase.share).statistic,
                stats.spearmanr(curve, phrase.share).statistic,
            ]
        )
    return np.array(scores)


def largest_difference(phrases: tuple[AlignedPhrase, ...]) -> float:
    """Return the maximum difference of the two implementations over all phrases and the four scores."""
    table = Alignment(phrases, "mean").table
    own = table[table["method"] == "map"][["roc_auc", "average_precision", "pearson", "spearman"]]
    return float(np.abs(own.to_numpy() - one_at_a_time(phrases)).max())


def summarize(table: pd.DataFrame, phrases: int, columns: int, worst: float) -> dict[str, object]:
    """Return medians, the limit and the setup as JSON-serialisable values."""
    seconds = table.pivot(index="round", columns="part", values="seconds")
    together, single = seconds["score"] / phrases, seconds["single"] / min(SINGLE, phrases)
    median = float(seconds["score"].median())
    asked = phrases >= 10_000 and columns >= 128
    return {
        "bar": f"{phrases} phrases of {columns} columns score in at most {LIMIT:g} s",
        "state": ("reached" if median <= LIMIT else "missed") if asked else "not asked",
        "score_seconds": median,
        "pool_seconds": float(seconds["pool"].median()),
        "pooled_phrases": min(POOLED, phrases),
        "ratio": float((single / together).median()),
        "largest_difference": worst,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **environment(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "scikit-learn": sklearn.__version__,
        "scipy": scipy.__version__,
    }


def _timed(work: Callable[[], object]) -> dict[str, float]:
    wall, cpu = perf_counter(), process_time()
    work()
    return {"seconds": perf_counter() - wall, "cpu_seconds": process_time() - cpu}


def _parser() -> Any:
    options = parser(__doc__, "alignment_speed", model=False)
    add = options.add_argument
    add("--phrases", type=int, default=10_000, help="number of phrases (default: 10000)")
    add("--columns", type=int, default=128, help="columns per phrase (default: 128)")
    add("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    add("--seed", type=int, default=0, help="seed of the phrases (default: 0)")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
