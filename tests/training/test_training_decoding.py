from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from attnviz.errors import TrainingError
from attnviz.sounds import Decoding
from attnviz.training.decoding import tune_decoding

UNSMOOTHED = Decoding(low_share=0.7, median_seconds=0, min_seconds=0.2)


def tuned(probabilities, truth, decoding=UNSMOOTHED):
    names = [f"class {i}" for i in range(np.shape(probabilities)[1])]
    return tune_decoding(np.asarray(probabilities), np.asarray(truth), names, 0.04, decoding)


def test_separable_scores_are_cut_half_way():
    scores = [[[0.1, 0.2, 0.6, 0.7], [0.9, 0.02, 0.01, 0.03]]]
    truth = [[[0, 0, 1, 1], [1, 1, 0, 1]]]
    found = tuned(scores, truth)
    assert found.threshold == pytest.approx({"class 0": 0.4, "class 1": 0.015})
    assert (found.low_share, found.median_seconds, found.min_seconds) == (0.7, 0, 0.2)


def test_no_other_threshold_has_a_higher_f1():
    rng = np.random.default_rng(0)
    truth = rng.random((3, 2, 70)) < 0.3
    scores = np.clip(0.3 * truth + 0.7 * rng.random(truth.shape), 0, 1)
    found = tuned(scores, truth).threshold
    for i in range(2):
        flat, active = scores[:, i].ravel(), truth[:, i].ravel()
        best = max(f1_score(active, flat >= level) for level in np.linspace(0.01, 0.99, 400))
        assert f1_score(active, flat >= found[f"class {i}"]) >= best - 1e-12


def test_thresholds_are_of_smoothed_scores():
    row, truth = np.full(60, 0.2), np.zeros(60, bool)
    row[30:40], truth[30:40] = 0.8, True
    row[[5, 15, 25, 50]] = 0.7  # blips that the filter takes out
    found = tuned(row[None, None], truth[None, None], Decoding(median_seconds=0.12))
    assert found.threshold == pytest.approx({"class 0": 0.5})
    assert found.intervals(row[None], ["class 0"], 0.04) == [[(30, 40)]]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_thresholds_stay_within_what_can_be_reached(score):
    found = tuned(np.full((1, 1, 9), score), np.ones((1, 1, 9)))
    assert 0.01 <= found.threshold["class 0"] <= 0.99


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        (np.ones((1, 2, 3)), np.ones((1, 2, 4)), r"\(1, 2, 4\)"),
        (np.ones((2, 3)), np.ones((2, 3)), "clips"),
        (np.ones((1, 2, 3)), np.array([[[1, 0, 0], [0, 0, 0]]]), r"\['class 1'\] never sound"),
    ],
)
def test_what_cannot_be_tuned(probabilities, truth, message):
    with pytest.raises(TrainingError, match=message):
        tune_decoding(probabilities, truth, ["class 0", "class 1"], 0.04)
