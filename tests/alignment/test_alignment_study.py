"""Maps with known answers: the study must say so of each."""

from __future__ import annotations

import numpy as np
import pytest
from alignment_synthetic import COLUMNS, DOG, RAIN, event_rows, planted_maps, study

from attnviz.alignment import Alignment, align


@pytest.fixture(scope="module")
def studies():
    return {kind: study(kind) for kind in ("perfect", "inverted", "energy", "noisy energy", "noise")}


def row(result, method, score="roc_auc"):
    scores = result.pooled.scores
    return scores[(scores["method"] == method) & (scores["score"] == score)].iloc[0]


def verdict(result, control, score="roc_auc"):
    rows = result.pooled.differences
    return rows[(rows["control"] == control) & (rows["score"] == score)].iloc[0]["verdict"]


def test_perfect_maps(studies):
    result = studies["perfect"]
    for score in ("roc_auc", "average_precision", "pearson", "spearman", "partial", "pointing"):
        assert row(result, "map", score)["value"] == pytest.approx(1.0, abs=1e-5)
    assert row(result, "map", "onset_distance")["value"] < 0.02  # one column
    for control in ("constant", "energy", "reversed", "other_clip"):
        assert verdict(result, control) == "better"
    assert verdict(result, "reversed", "onset_distance") == "better"
    assert not row(result, "map")["at_chance"]


def test_inverted_maps(studies):
    result = studies["inverted"]
    assert row(result, "map")["value"] == pytest.approx(0.0, abs=1e-9)
    assert row(result, "map", "pearson")["value"] == pytest.approx(-1.0, abs=1e-5)
    for control in ("constant", "energy", "reversed", "other_clip"):
        assert verdict(result, control) == "worse"
    assert not row(result, "map")["at_chance"]


def test_energy_only_maps(studies):
    result = studies["energy"]
    assert row(result, "map")["value"] > 0.85
    assert not row(result, "map")["at_chance"]
    assert verdict(result, "constant") == "better"
    assert verdict(result, "energy") == "no difference shown"
    assert row(result, "map", "partial")["phrases"] == 0  # nothing is left of it


def test_noise_does_not_make_energy_know_more(studies):
    result = studies["noisy energy"]
    assert row(result, "map")["value"] > 0.8
    assert verdict(result, "energy") != "better"
    partial = row(result, "map", "partial")
    assert partial["low"] < 0 < partial["high"]
    assert partial["at_chance"]


def test_noise_maps(studies):
    result = studies["noise"]
    for score in ("roc_auc", "pearson", "spearman", "partial"):
        assert row(result, "map", score)["at_chance"]
    assert verdict(result, "constant") == "no difference shown"
    assert verdict(result, "other_clip") == "no difference shown"
    assert verdict(result, "energy") == "worse"


@pytest.mark.parametrize("kind", ["perfect", "inverted", "energy", "noisy energy", "noise"])
def test_controls_that_should_be_at_chance_are(studies, kind):
    result = studies[kind]
    for method in ("constant", "other_clip"):
        found = row(result, method)
        assert found["at_chance"], method
        assert abs(found["exchanged"] - 0.5) < 0.08
    assert row(result, "constant")["value"] == 0.5
    assert not row(result, "energy")["at_chance"]


@pytest.mark.slow
def test_noise_is_called_chance_about_as_often_as_it_should():
    """95 % intervals of eight noise studies: three misses or more would be one in 170."""
    pools = [study("noise", clips=8, seed=seed).pool(n_resamples=200, n_permutations=200) for seed in range(8)]
    found = [pool.scores.set_index(["method", "score"]).loc[("map", "roc_auc")] for pool in pools]
    assert sum(not one["at_chance"] for one in found) <= 2
    assert sum(not one["low"] <= 0.5 <= one["high"] for one in found) <= 4  # of few sources: a little too narrow


def test_what_clips_have_in_common_is_no_knowledge_of_the_clip():
    """A map that always points at the middle, sounds that are always there: far from 0.5, but so is any clip's."""
    middle = np.exp(-0.5 * ((np.arange(COLUMNS) - 18) / 4) ** 2)
    rng = np.random.default_rng(0)
    results = []
    for number in range(12):
        onset = rng.uniform(0.28, 0.36)
        events = [("dog barks", onset, onset + 0.1), ("rain falls", onset - 0.05, onset + 0.12)]
        maps = planted_maps({DOG: middle, RAIN: middle + 0.1 * rng.random(COLUMNS)})
        results.append(align(maps, event_rows(*events, clip=f"{number}")))
    result = Alignment.concat(results)
    assert row(result, "map")["value"] > 0.85
    assert row(result, "map")["exchanged"] > 0.85
    assert verdict(result, "other_clip") == "no difference shown"


@pytest.mark.parametrize("clips", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_random_weights_over_seeds_are_at_chance(clips):
    """The signs of the seeds are flipped, on few clips and on many: energy read with a random sign, ten seeds."""

    def controls(shares, energy, rng):
        signs = np.random.default_rng(5).permutation([1, -1] * 5)  # the same networks on every clip
        return {
            "random weights": [
                planted_maps(dict.fromkeys((DOG, RAIN), 1.5 + sign * energy + rng.random(COLUMNS)))
                for sign in signs
            ],
            "always loud": [
                planted_maps(dict.fromkeys((DOG, RAIN), 1.5 + energy + rng.random(COLUMNS))) for _ in range(10)
            ],
        }

    result = study("perfect", clips=clips, controls=controls)
    random, loud = row(result, "random weights"), row(result, "always loud")
    assert random["permuted"] == loud["permuted"] == "seeds"
    assert random["at_chance"]
    assert not loud["at_chance"]
    assert random["permutation_high"] - random["permutation_low"] > 0.1
    assert "at chance" in result.summary()
    assert np.isnan(row(result, "map")["permutation_low"]) == (clips < 5)
