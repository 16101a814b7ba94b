"""benchmarks/alignment_speed.py runs, and says that both ways agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import alignment_speed


def test_a_small_run(tmp_path, capsys):
    arguments = ["--phrases", "30", "--columns", "24", "--rounds", "2", "--out", str(tmp_path / "speed")]
    assert alignment_speed.main(arguments) == 0
    summary = json.loads((tmp_path / "speed" / "summary.json").read_text())
    assert summary["state"] == "not asked"
    assert summary["largest_difference"] < 1e-12
    assert summary["ratio"] > 0
    rounds = pd.read_csv(tmp_path / "speed" / "rounds.csv")
    assert rounds["part"].tolist() == ["score", "single", "pool"] * 2
    assert "30 phrases of 24 columns" in capsys.readouterr().out


def test_the_limit_is_judged():
    rows = [
        {"round": 0, "part": part, "seconds": seconds}
        for part, seconds in (("score", 6.0), ("single", 1.0), ("pool", 1.0))
    ]
    table = pd.DataFrame(rows)
    assert alignment_speed.summarize(table, 10_000, 128, 0.0)["state"] == "missed"
    table.loc[0, "seconds"] = 4.0
    assert alignment_speed.summarize(table, 10_000, 128, 0.0)["state"] == "reached"
    assert alignment_speed.summarize(table, 9_999, 128, 0.0)["state"] == "not asked"
