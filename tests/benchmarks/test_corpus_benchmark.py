"""benchmarks/corpus.py: the pooled part runs, and targets are judged by ratios of the same round."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import corpus


def tables(rates):
    rows = [
        {"number": number, "executor": executor, "workers": workers, "clips_per_second": rate * (1 + number),
         "seconds_per_clip": 1 / rate, "bytes_per_clip": 9000.0}
        for number in range(3)
        for (executor, workers), rate in rates.items()
    ]  # fmt: skip
    over = {"clips": [1000, 10_000], "shards": [10, 100], "coordinator_cpu_seconds": [1.0, 4.0],
            "coordinator_mib": [600.0, 606.0], "worker_mib": [500.0, 560.0], "rerun_seconds": [0.1, 1.0],
            "collect_seconds": [0.3, 3.0]}  # fmt: skip
    return {
        "overhead": pd.DataFrame(over),
        "speedup": pd.DataFrame(rows),
        "kills": pd.DataFrame({"killed": [50], "lost": [0], "doubled": [0]}),
        "pooling": pd.DataFrame({"phrases": [100_000], "seconds": [100.0], "peak_mib": [900.0]}),
    }


def test_targets_compare_the_same_round_and_the_first_limit_is_named():
    found = tables({("local", 1): 1.0, ("local", 2): 1.9, ("ray", 2): 1.8})
    reached = {bar.what: bar.state for bar in corpus.bars(found)}
    assert reached["local, 1 to 2 processes"] == "reached"
    assert reached["memory of the coordinator, 1000 to 10000 clips"] == "reached"
    assert reached["memory of a worker, 1000 to 10000 clips"] == "missed"
    text = "\n".join(corpus.extrapolated(found, None))
    assert "10000 files of tables" in text
    assert "4.34 h on 64 workers" in text
    assert "the time of the clips, not the engine" in text
    assert "workers wait for it" in "\n".join(corpus.extrapolated(found, 0.01))


def test_the_part_of_pooling_runs():
    found = corpus.pooling(60, 5)
    assert found["seconds"] > 0
    assert found["peak_mib"] > found["mib_before"] * 0.5
