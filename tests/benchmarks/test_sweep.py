"""benchmarks/sweep.py: what is compared with what, the correlations of planted settings, and that it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scenes.synthetic_scenes import write_layout

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import sweep
from sweep_parts.settings import Settings
from sweep_parts.tables import cell_table, clip_table, correlations, judge

SETTINGS = Settings(Path("esc10"), "planted", scales=(1.0, 4.0, 9.0), steps=(10, 50), clips=12, resamples=20)
REFERENCE = [
    {"embedding": row.tolist(), "logits": row[:3].tolist()}
    for row in np.random.default_rng(0).normal(size=(30, 4))
]


def planted(better_aligned: bool):
    """Settings whose clips are nearer to the reference at higher scales, and whose maps align better or worse."""
    rng = np.random.default_rng(1)
    rows = []
    for case in SETTINGS.cases():
        near = case.scale + case.steps / 100
        auc = 0.5 + (near if better_aligned else -near) / 40 + 0.001 * rng.normal()
        own = np.array(REFERENCE[case.prompt]["embedding"]) + 0.2 * (10 - near) + 0.05 * rng.normal(size=4)
        rows.append(
            case._asdict()
            | {"classes": "Rain", "heard": "Rain", "right": case.prompt < near, "in order": None, "level": -20.0}
            | {
                "embedding": own.tolist(),
                "logits": own[:3].tolist(),
                "auc": {"mean": [auc, None], "energy": [0.5]},
            }
        )
    return rows


@pytest.mark.parametrize("better", [True, False])
def test_settings_that_align_better_are_found_to_be_better_or_worse(better):
    rows = planted(better)
    found = correlations(rows, REFERENCE, SETTINGS).set_index(["readout", "quality", "over"])
    sign = 1 if better else -1
    for quality in ("FD-listener", "KAD-listener", "right"):
        for over in ("all settings", "guidance scales"):
            row = found.loc[("mean", quality, over)]
            assert row["spearman"] * sign > 0.9
            assert (row[["low", "high"]] * sign > 0).all()
    assert np.isnan(found.loc[("mean", "in order", "all settings"), "spearman"])  # nothing was in order or not
    bars = {bar.what: bar for bar in judge(found.reset_index())}
    assert len(bars) == 6
    (order,) = (bar for what, bar in bars.items() if "in order" in what)
    assert order.state == "not measured"


def test_a_setting_has_the_means_of_its_clips_and_the_distances_of_all():
    rows = planted(True)
    cells = cell_table(rows, REFERENCE, SETTINGS).set_index(["scale", "steps"])
    assert len(cells) == 6
    clips = clip_table(rows)
    own = clips[(clips["scale"] == 4) & (clips["steps"] == 50)]
    cell = cells.loc[(4.0, 50)]
    assert cell["right"] == own["right"].mean() == 5 / 12
    assert cell["auc mean"] == pytest.approx(own["auc mean"].mean())
    assert (cell["clips"], cell["phrases scored"]) == (12, 12)
    assert cell["FD-listener"] > cells.loc[(9.0, 50), "FD-listener"] > 0
    assert "embedding" not in clips


def test_every_setting_has_the_same_prompts_and_noise_and_a_cut_study_has_every_setting():
    cases = SETTINGS.cases()
    assert len(cases) == 3 * 2 * 12 == len(set(cases))
    assert {case[:2] for case in cases[:6]} == {case[:2] for case in cases}
    assert len({SETTINGS.seed_of(prompt) for prompt in range(12)}) == 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::attnviz.errors.AttnVizWarning")
def test_it_runs_goes_on_and_draws(small_checkpoint, tmp_path, capsys):
    esc10 = write_layout(tmp_path / "esc10", range(1, 11), folds=(4,), per_fold=2)
    out = tmp_path / "out"
    arguments = ["--data", esc10, "--model", small_checkpoint, "--tiny", "--clips", 2, "--steps", 2, "--out", out]
    arguments = [str(one) for one in arguments]
    assert sweep.main(arguments) == 0
    cells = pd.read_csv(out / "cells.csv")
    assert cells[["scale", "steps"]].to_numpy().tolist() == [[1, 2], [4, 2]]
    assert np.isfinite(cells[["FD-listener", "KAD-listener", "IS-listener", "KL-softmax-listener"]]).all(axis=None)
    made = sorted((out / "pieces" / "clips").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in made]
    made[1].unlink()
    assert sweep.main(arguments) == 0
    assert [path.stat().st_mtime_ns == time for path, time in zip(made, before, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    pd.testing.assert_frame_equal(pd.read_csv(out / "cells.csv"), cells)
    assert {path.name for path in out.glob("*.png")} == {"heatmaps.png", "alignment-mean.png"}
    assert "do not compare with papers" in (out / "README.md").read_text()
