"""benchmarks/diagnosis.py: it runs, finds the faults it plants, and says which thresholds set good from bad."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import attnviz
from attnviz.diagnosis import THRESHOLDS
from attnviz.testing import example_maps

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from diagnosis_parts.planting import changed, planted

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def study():
    """The script, under a name of its own: the tests have a folder `diagnosis`."""
    spec = importlib.util.spec_from_file_location("diagnosis_study_command", BENCHMARKS / "diagnosis.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks for it there
    spec.loader.exec_module(module)
    return module


def test_every_sign_has_a_planted_fault_that_it_finds():
    maps = example_maps(both=True)
    prediction = np.random.default_rng(0).normal(size=(4, 8, 16))
    sound = maps.spectrogram[0, 0].to_numpy()
    pairs = (prediction, 0.9 * prediction), (sound, sound + 0.1)
    audio = 0.5 * np.sin(np.arange(16_000))
    assert attnviz.diagnose(maps, predictions=pairs[0], reconstruction=pairs[1], audio=audio).found == []
    found = planted(maps, *pairs, audio)
    assert set(found) == set(THRESHOLDS)
    for name, diagnosis in found.items():
        assert name in diagnosis.found, name


def test_maps_that_nothing_is_done_to_stay_as_they_are():
    maps = example_maps(both=True)
    same = changed(maps)
    for name in maps.layers:
        np.testing.assert_allclose(same[name].to_numpy(), maps[name].to_numpy(), rtol=1e-6)
    np.testing.assert_array_equal(same.spectrogram, maps.spectrogram)


def values(own, faults, finding="word ignored"):
    """A table of one sign (a fault is below 0.5) with the values given."""
    rows = [(finding, "own", one) for one in own] + [(finding, "planted", one) for one in faults]
    return pd.DataFrame(rows, columns=["finding", "weights", "value"]).assign(unjudged="")


def test_a_threshold_is_judged_by_both_sides(study):
    good, bad = np.linspace(0.6, 2.0, 40), np.linspace(0.0, 0.4, 40)
    summary = study.summarize(values(good, bad)).loc["word ignored"]
    assert summary["state"] == "apart"
    assert (summary["own_beyond"], summary["planted_beyond"]) == (0, 1)
    assert summary["own_end"] == pytest.approx(np.quantile(good, 0.05))
    assert summary["planted_end"] == pytest.approx(np.quantile(bad, 0.95))
    assert np.isnan(summary["shuffled_beyond"])
    assert study.summarize(values(good - 0.3, bad)).loc["word ignored", "state"] == "own beyond"
    assert study.summarize(values(good, bad + 0.3)).loc["word ignored", "state"] == "fault missed"
    assert study.summarize(values(good, [])).loc["word ignored", "state"] == "not judged"
    # Of a sign whose faults lie above, the ends are the other way round.
    above = study.summarize(values(1 - good / 4, 0.996 + bad / 100, "all words alike")).loc["all words alike"]
    assert above["own_end"] == pytest.approx(np.quantile(1 - good / 4, 0.95))
    assert above["state"] == "apart"


@pytest.mark.slow
def test_it_runs_on_a_tiny_checkpoint_and_counts_every_kind(study, tmp_path, capsys):
    study.main(["--tiny", "--prompts", "1", "--steps", "2", "--out", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "values.csv", keep_default_na=False)
    counts = rows.groupby("weights")["finding"].agg(["count", "nunique"])
    assert (counts.loc[["own", "planted", "shuffled"]] == len(THRESHOLDS)).all(axis=None)
    summary = pd.read_csv(tmp_path / "summary.csv", index_col="finding")
    assert list(summary.index) == list(THRESHOLDS)
    printed = capsys.readouterr().out
    assert all(name in printed for name in THRESHOLDS)
    assert "planted_beyond" in printed
