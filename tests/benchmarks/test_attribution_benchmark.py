"""The study of methods of attribution: comparisons with known answers, and its page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scenes.synthetic_scenes import write_layout

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from attribution import Settings, main  # noqa: E402
from attribution_parts.measuring import FAITHFUL, SCORES  # noqa: E402
from attribution_parts.report import write_report  # noqa: E402
from attribution_parts.tables import between, compared, differences, pooled  # noqa: E402
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
    known = table.dropna(subset="p")
    assert set(known.index.get_level_values("score")) == set(SCORES)
    assert (known["p_adjusted"] >= known["p"] - 1e-12).all()


def test_means_have_intervals_and_undefined_scores_are_left_out(scores):
    scores.loc[scores["method"] == "rollout", "iou"] = np.nan
    table = pooled(scores, seed=0).set_index(["method", "score"])
    assert table.loc[("attention", "roc_auc"), "low"] < table.loc[("attention", "roc_auc"), "mean"]
    assert table.loc[("rollout", "iou"), "cases"] == 0
    assert np.isnan(table.loc[("rollout", "iou"), "mean"])


def test_page_names_every_method_and_its_cost(scores, tmp_path):
    known = scores["method"] != "energy"
    scores.loc[known, ["seconds", "cpu_seconds", "memory_mib"]] = 2.0, 1.5, 10.0
    scores["completeness_error"] = np.nan
    scores["efficiency_error"] = np.where(scores["method"] == "shapley", 2e-7, np.nan)
    study = Study(tmp_path, Settings("planted", "planted", fold=3), {"scenes": ("scenes",)})
    study.write("scenes", scores)
    write_report(study)
    page = (tmp_path / "README.md").read_text("utf-8")
    assert "fold 3" in page
    assert "| energy | 12 | 0.3" in page
    assert "| shapley | 2.0 | 1.5 | 10 |  | 2e-07 |" in page
    assert page.count("| value |") == 3
    assert {path.name for path in (tmp_path / "scenes").iterdir()} == {
        *("means.csv", "comparisons.csv", "costs.csv", "methods.png"),
    }


def test_what_is_said_of_a_clip_counts_once_a_clip(scores):
    """Faithfulness is the same for all phrases of a clip."""
    own = scores.assign(words=scores["roc_auc"], infidelity=1 - scores["roc_auc"])
    twice = pd.concat([own, own.assign(label="rain", source="another recording")])
    table = pooled(twice, seed=0).set_index(["method", "score"])
    assert table.loc[("attention", "roc_auc"), "cases"] == 2 * CLIPS
    assert table.loc[("attention", "words"), "cases"] == table.loc[("attention", "words"), "clips"] == CLIPS
    found = compared(twice, seed=0).set_index(["method", "score"])
    assert found.loc[("value", "words"), "gain"] == pytest.approx(GAIN["value"], abs=0.02)
    assert found.loc[("value", "infidelity"), "verdict"] == "better"  # a lower one is
    assert found.loc[("value", "words"), "recordings"] == CLIPS


def test_models_are_compared_method_by_method(scores):
    worse = scores.assign(**{score: scores[score] - 0.2 for score in SCORES})
    table = between(scores, worse, seed=0).set_index(["method", "score"])
    assert table.loc[("value", "roc_auc"), "gain"] == pytest.approx(0.2)
    assert table.loc[("value", "roc_auc"), "verdict"] == "better"
    assert table.loc[("energy", "sharp_onset_distance"), "verdict"] == "worse"


def test_methods_of_other_clips_are_compared_on_those_of_both(scores):
    few = scores[(scores["method"] != "value") | (scores["clip"] < "0005")]
    (row,) = (one for one in differences(few, few, "value", "attention", 0) if one["score"] == "roc_auc")
    assert row["cases"] == 5
    assert row["gain"] == pytest.approx(GAIN["value"], abs=0.03)


@pytest.mark.slow
def test_a_tiny_study_runs_goes_on_and_compares_two_models(small_checkpoint, tmp_path):
    esc10 = write_layout(tmp_path / "esc10", range(1, 11), folds=(4,), per_fold=3)
    arguments = ["--data", esc10, "--model", small_checkpoint, "--tiny", "--out", tmp_path / "out"]
    assert main([str(one) for one in [*arguments, "--parts", "scenes"]]) == 0
    first = pd.read_csv(tmp_path / "out" / "scenes.csv")
    assert set(first["method"]) == {"attention", "leave_one_out", "constant", "energy", "reversed", "random order"}
    known = first[first["method"] == "leave_one_out"]
    assert known[[*FAITHFUL, "seconds", "memory_mib", "sharp_roc_auc"]].notna().all(axis=None)
    piece = tmp_path / "out" / "pieces" / "scenes" / "attention" / "0000.json"
    written = piece.stat().st_mtime_ns
    more = ["--scenes", "2", "--checks", "1", "--other", small_checkpoint, "--methods", "attention"]
    assert main([str(one) for one in [*arguments, *more]]) == 0
    assert piece.stat().st_mtime_ns == written
    again = pd.read_csv(tmp_path / "out" / "scenes.csv")
    assert (again["method"] == "attention").sum() > (first["method"] == "attention").sum()
    assert (again["method"] == "leave_one_out").sum() == (first["method"] == "leave_one_out").sum()
    page = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "less the same with the other model" in page
    assert "## Checks against the model" in page
    checks = pd.read_csv(tmp_path / "out" / "checks.csv")
    assert set(checks["method"]) == {"attention", "random", "energy"}
    assert (tmp_path / "out" / "other" / "scenes.csv").exists()
