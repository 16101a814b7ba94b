"""The study of methods of attribution: comparisons with known answers, and its page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from attribution import Settings  # noqa: E402
from attribution_parts.measuring import SCORES  # noqa: E402
from attribution_parts.report import compared, pooled, write_report  # noqa: E402
from harness import Study  # noqa: E402

CLIPS = 12
GAIN = {"attention": 0.0, "value": 0.1, "shapley": -0.1, "rollout": 0.0, "energy": -0.3}


@pytest.fixture
def scores():
    """Each method has the scores of attention, plus a known gain and a little noise of its own."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.8, size=(CLIPS, len(SCORES)))
    rows = []
    for name, gain in GAIN.items():
        noise = 0.0 if name == "attention" else 0.01 * rng.standard_normal(base.shape)
        for clip, values in enumerate(base + gain + noise):
            row = {"clip": f"{clip:04d}", "label": "dog", "source": f"recording {clip}", "method": name}
            rows.append({**row, "column_ms": 160.0, **dict(zip(SCORES, values, strict=True))})
    return pd.DataFrame(rows)


def test_paired_differences_find_what_was_planted_and_nothing_else(scores):
    table = compared(scores, seed=0).set_index(["method", "score"])
    assert set(table.index.get_level_values("method")) == {"value", "shapley", "rollout"}  # no control
    for name in ("value", "shapley", "rollout"):
        row = table.loc[(name, "roc_auc")]
        assert row["gain"] == pytest.approx(GAIN[name], abs=0.02)
        assert row["low"] < row["gain"] < row["high"]
    verdicts = table["verdict"]
    assert (verdicts[("value", "roc_auc")], verdicts[("shapley", "roc_auc")]) == ("better", "worse")
    assert verdicts[("rollout", "roc_auc")] == "no difference shown"
    # A longer distance of the onset is worse.
    assert verdicts[("value", "onset_distance")] == "worse"
    assert (table["p_adjusted"] >= table["p"] - 1e-12).all()


def test_means_have_intervals_and_undefined_scores_are_left_out(scores):
    scores.loc[scores["method"] == "rollout", "iou"] = np.nan
    table = pooled(scores, seed=0).set_index(["method", "score"])
    assert table.loc[("attention", "roc_auc"), "low"] < table.loc[("attention", "roc_auc"), "mean"]
    assert table.loc[("rollout", "iou"), "phrases"] == 0
    assert np.isnan(table.loc[("rollout", "iou"), "mean"])


def test_page_names_every_method_and_its_cost(scores, tmp_path):
    known = scores["method"] != "energy"
    scores.loc[known, ["seconds", "memory_mib"]] = 2.0, 10.0
    scores["completeness_error"] = np.nan
    scores["efficiency_error"] = np.where(scores["method"] == "shapley", 2e-7, np.nan)
    study = Study(tmp_path, Settings("planted", "planted", fold=3), {"scenes": ("scenes",)})
    study.write("scenes", scores)
    write_report(study)
    page = (tmp_path / "README.md").read_text("utf-8")
    assert "fold 3" in page
    assert "12 clips" in page
    assert "| energy | 0.3" in page
    assert "| shapley |  | 2e-07 |" in page
    assert page.count("| value |") == 2
    assert {path.name for path in (tmp_path / "scenes").iterdir()} == {
        *("means.csv", "comparisons.csv", "costs.csv", "roc_auc.png"),
    }
