"""benchmarks/bundled.py: what it counts, what it chooses, and which bars are reached."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scenes.synthetic_scenes import write_layout

from attnviz.listener.model import Listener, ListenerConfig
from attnviz.scenes import CLASSES

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bundled as command
from bundled_parts.alignment import _auc, chosen, mean_auc
from bundled_parts.bars import judge
from bundled_parts.generation import heard_row
from bundled_parts.hearing import average_precisions
from bundled_parts.levels import FLOOR_DB, level
from bundled_parts.reconstruction import mel_distance
from bundled_parts.settings import PARTS, TABLES
from harness.material import ORDER, Prompt


def test_auc_is_1_for_the_truth_0_for_its_opposite_and_undefined_without_a_change():
    active = np.zeros(256, dtype=bool)
    active[64:128] = True
    curve = np.zeros(64, dtype=np.float32)
    curve[16:32] = 1
    assert _auc(curve, active) == 1
    assert _auc(-curve, active) == 0
    assert _auc(np.zeros(64), active) == 0.5
    assert np.isnan(_auc(curve, np.ones(256, dtype=bool)))
    # Padding is not scored: without the sound's columns there is nothing to tell apart.
    curve[16:32] = np.nan
    assert np.isnan(_auc(curve, active))


def test_the_layer_and_timestep_of_the_highest_mean_are_chosen_and_the_mean_readout_is_no_layer():
    rows = pd.DataFrame(
        [
            {"layer": layer, "timestep": timestep, "auc": value + extra}
            for layer, timestep, value in [("a", 50, 0.7), ("a", None, 0.6), ("b", 50, 0.5), ("mean", 50, 0.9)]
            for extra in (-0.01, 0.01, np.nan)
        ]
    )
    assert chosen(rows) == ("a", 50.0)
    value, defined, undefined = mean_auc(rows, "a", 50.0)
    assert (round(value, 6), defined, undefined) == (0.7, 2, 1)
    assert round(mean_auc(rows, "a", None)[0], 6) == 0.6


class _Clip:
    def __init__(self, active):
        self.active = active

    def activity(self, columns):
        return self.active


def test_average_precision_of_a_perfect_listener_is_1_and_of_an_absent_class_undefined():
    truth = np.zeros((10, 8), dtype=bool)
    truth[0, 2:5] = True
    precisions = average_precisions(truth[None].astype(float), [_Clip(truth)])
    assert precisions["Dog bark"] == 1
    assert np.isnan(precisions["Rain"])


def test_mel_distance_counts_audible_cells_alone():
    wanted = np.full((3, 5), -11.0)
    wanted[0, :2] = -1.0
    given = wanted + 0.5
    given[1:] += 9
    assert mel_distance(wanted, given) == pytest.approx(0.5)


class _Hearing:
    def __init__(self, top, onsets):
        self.top, self.onsets = top, onsets
        self.probabilities = xr.DataArray(np.zeros((10, 4)), {"sound": list(CLASSES)}, ("sound", "time"))

    def strongest(self, n):
        return self.top[:n]

    def onset(self, sound):
        return self.onsets.get(sound)


def test_what_was_heard_is_held_against_what_was_asked():
    pair = Prompt("rain falls, then a dog barks", ("Rain", "Dog bark"), ((0, 10), (17, 28)), True)
    heard = _Hearing(["Dog bark", "Rain"], {"Rain": 1.0, "Dog bark": 4.0})
    assert heard_row(heard, pair)["right"] is True
    assert heard_row(heard, pair)["in order"] is True
    assert heard_row(_Hearing(["Dog bark", "Rain"], {"Rain": 4.0, "Dog bark": 1.0}), pair)["in order"] is False
    # Where one of the two is not heard there is no order to judge.
    assert heard_row(_Hearing(["Rain", "Rooster"], {"Rain": 4.0}), pair)["in order"] is None
    assert heard_row(_Hearing(["Rain", "Rooster"], {"Rain": 4.0}), pair)["right"] is False


def test_order_words_are_found_as_words():
    assert ORDER.search("rain falls, then a dog barks")
    assert ORDER.search("a dog before rain")
    assert not ORDER.search("rain falls while a dog strengthens")


def test_levels_are_held_against_the_scenes_of_their_own_class():
    scene_levels = pd.DataFrame({"class": ["Rain"] * 3 + ["Rooster"], "level": [-29.0, -30.0, -31.0, -40.0]})
    rows = [("Rain", "own", -33.0), ("Rain", "own", -35.0), ("Rooster", "own", -47.0), ("Rooster", "own", -51.0)]
    rows += [("Rain", "1", -38.0), ("Rooster", "1", -52.0), ("Rain", "10", -30.0), ("Rooster", "10", -35.0)]
    levels = pd.DataFrame(rows, columns=["class", "scale", "level"])
    found = [(bar.measured, bar.state) for bar in judge({"levels": levels, "scene_levels": scene_levels})[7:10]]
    # Medians of the gaps: -4 for rain and -9 for a rooster; at scale 1 between -8 and -12, at 10 between 0 and 5.
    assert found == [("-9.0 (Rooster)", "missed"), ("1 of 4", "missed"), ("-10.0 (1)", "reached")]


def test_level_is_that_of_a_sine_and_silence_has_a_floor():
    sine = 0.1 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert level(sine) == pytest.approx(-20 - 10 * np.log10(2), abs=1e-3)
    assert level(np.zeros(100)) == FLOOR_DB


def test_bars_say_reached_missed_and_not_measured():
    tables = {
        "vae": pd.DataFrame({"name": ["PSNR", "listener mAP lost"], "value": [26.0, 0.2]}),
        "generation": pd.DataFrame(
            {
                "classes": ["Rain", "Rain", "Rooster", "Rain + Dog bark", "Rain + Dog bark"],
                "right": [True, False, True, True, True],
                "judged": ["Rain", "Rooster", "Rooster", np.nan, np.nan],
                "in order": [None, None, None, "True", np.nan],
            }
        ),
        "generated": pd.DataFrame({"layer": ["a"], "timestep": [None], "auc": [0.9]}),
        "generated_choosing": pd.DataFrame({"layer": ["a"], "timestep": [None], "auc": [np.nan]}),
        "scenes": pd.DataFrame({"layer": ["a", "mean"], "timestep": [50, 50], "auc": [0.9, 0.7]}),
        "scenes_choosing": pd.DataFrame({"layer": ["a", "mean"], "timestep": [50, 50], "auc": [0.8, 0.9]}),
    }
    states = {bar.what: (bar.measured, bar.state) for bar in judge(tables)}
    assert states["VAE: PSNR of the mel image, dB"] == ("26", "reached")
    assert states["VAE: listener mAP lost in reconstruction"] == ("0.2", "missed")
    assert states["listener: frame mAP"][1] == "not measured"
    assert states["generation, one sound: the asked class is the strongest"] == ("67% (2 of 3)", "missed")
    assert states["generation, one sound: the second judge names the asked class"] == ("67% (2 of 3)", "missed")
    least = states["generation, one sound: the class that is least often the strongest"]
    assert least == ("Rain: 50% (1 of 2)", "missed")
    assert states["generation, two sounds: both among the top two"] == ("100% (2 of 2)", "reached")
    generated, real = (
        states[f"maps {what}: frame ROC-AUC of the best layer"] for what in ("during generation", "of real scenes")
    )
    assert generated == ("undefined for every phrase to choose by", "not measured")
    assert real == ("0.900 (a, t = 50; 1 phrases, 0 undefined); mean readout 0.700", "reached")
    assert states['generation, "X, then Y": X first, where both are heard'] == ("100% (1 of 1)", "reached")


# ---- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(small_checkpoint, tmp_path_factory):
    """The whole study, tiny, on a model with random weights."""
    folder = tmp_path_factory.mktemp("bundled")
    esc10 = write_layout(folder / "esc10", range(1, 11), folds=(3, 4), per_fold=2)
    shutil.copytree(small_checkpoint, folder / "model")
    torch.manual_seed(0)
    Listener(ListenerConfig(channels=(4,), hidden=4)).save_pretrained(folder / "model" / "listener")
    arguments = [
        str(one) for one in ("--data", esc10, "--model", folder / "model", "--out", folder / "out", "--tiny")
    ]
    assert command.main(arguments) == 0
    return folder / "out", arguments


@pytest.mark.slow
def test_every_part_is_measured_and_judged(whole):
    out, _ = whole
    made = {path.stem for path in out.glob("*.csv")}
    assert {name for part in PARTS for name in TABLES[part]} <= made
    text = (out / "README.md").read_text()
    assert "| listener: frame mAP | >= 0.75 |" in text
    bars = pd.read_csv(out / "bars.csv")
    undefined = set(bars.loc[bars["state"] == "not measured", "what"])  # random weights are heard as nothing
    assert all('"X, then Y"' in what or "maps during generation" in what for what in undefined)
    assert json.loads((out / "quality.json").read_text())["fold"] == 4
    asked = pd.read_csv(out / "generation.csv")
    assert asked["classes"].str.contains("+", regex=False).tolist() == [False, True, True]


@pytest.mark.slow
def test_what_is_there_is_not_measured_again_unless_asked(whole):
    out, arguments = whole
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.csv") if path.name != "bars.csv"}
    assert command.main([*arguments, "--parts", "listener", "vae", "--fresh"]) == 0
    changed = {name for name, time in before.items() if (out / name).stat().st_mtime_ns != time}
    assert changed == {"listener.csv", "vae.csv"}


@pytest.mark.slow
def test_another_study_is_refused_before_anything_is_removed(whole):
    out, arguments = whole
    there = sorted(path.name for path in out.iterdir())
    with pytest.raises(SystemExit, match="contains a study with other settings"):
        command.main([*arguments[:-1], "--parts", "vae", "--fresh"])  # not tiny
    assert sorted(path.name for path in out.iterdir()) == there
    with pytest.raises(SystemExit, match="choose and report on different folds"):
        command.main([*arguments, "--fold", "3"])
