"""The control for order: when other clips' phrases at the same place in the text are there."""

from __future__ import annotations

import numpy as np
import pytest
from alignment_synthetic import COLUMNS, DOG, GRID, HEARD, RAIN, event_rows, planted_maps, study

from attnviz.alignment import Alignment, align
from attnviz.alignment.methods import order_curves
from attnviz.audio import SpectrogramGrid
from attnviz.errors import MapsError


def clip(number, first, second=None, *, grid=GRID, label="dog barks"):
    """A clip whose first phrase, and second where given, last 0.1 s from these onsets; its maps know nothing."""
    rng = np.random.default_rng(number)
    maps = planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}, grid=grid)
    rows = [(label, first, first + 0.1)] + ([] if second is None else [("rain falls", second, second + 0.1)])
    return align(maps, event_rows(*rows, clip=f"{number}.wav"))


def test_order_vs_by_hand():
    pool = Alignment.concat([clip(0, 0.1, 0.4), clip(1, 0.2, 0.5), clip(2, 0.14, 0.44), clip(3, 0.6)])
    curves = order_curves(pool.phrases)
    shares = [phrase.share for phrase in pool.phrases]
    np.testing.assert_allclose(curves[0][0], (shares[2] + shares[4]) / 2)  # firsts of two, of the other clips
    np.testing.assert_allclose(curves[3][0], (shares[1] + shares[5]) / 2)  # seconds
    np.testing.assert_allclose(curves[6][0], (shares[0] + shares[2] + shares[4]) / 3)  # the only first of one
    rows = pool.table[pool.table["method"] == "order"]
    assert len(rows) == 7
    assert rows["iou"].isna().all()


def test_order_knows_where_sounds_are_that_keep_their_place():
    rng = np.random.default_rng(0)
    clips = [clip(number, *(rng.uniform(0.0, 0.12) + np.array([0.05, 0.4]))) for number in range(12)]
    pooled = Alignment.concat(clips).pool(n_resamples=200, n_permutations=100)
    scores = pooled.scores.set_index(["method", "score"])["value"]
    assert scores["order", "roc_auc"] > 0.85
    assert scores["map", "roc_auc"] < 0.7
    assert scores["other_clip", "roc_auc"] < 0.7
    verdicts = pooled.differences.set_index(["control", "score"])["verdict"]
    assert verdicts["order", "roc_auc"] == "worse"
    assert verdicts["other_clip", "roc_auc"] == "no difference shown"


def test_order_knows_nothing_of_sounds_that_lie_anywhere():
    rows = study("perfect").pooled.scores.set_index(["method", "score"])
    assert abs(rows.loc[("order", "roc_auc"), "value"] - 0.5) < 0.1


def test_a_second_clip_is_needed_and_a_place_that_others_have():
    alone = clip(0, 0.1, 0.4)
    assert "order" not in set(alone.table["method"])
    assert "both need at least two clips" in alone.summary()
    pool = Alignment.concat([alone, clip(1, 0.2)])
    assert [len(draws) for draws in order_curves(pool.phrases)] == [1, 0, 1]  # no other clip has a second phrase
    silent = align(planted_maps({DOG: np.zeros(COLUMNS)}), event_rows(("dog barks", np.nan, np.nan), clip="2.wav"))
    assert [len(draws) for draws in order_curves((*alone.phrases, *silent.phrases))] == [0, 0, 1]
    with pytest.raises(MapsError, match="'order'"):
        maps = planted_maps({DOG: np.zeros(COLUMNS)})
        align(maps, event_rows(("dog barks", 0.1, 0.3)), controls={"order": maps})


def test_samples_of_one_clip_are_no_other_clips_and_lengths_are_stretched():
    longer = SpectrogramGrid(height=6, width=120, audio_seconds=1.2)
    maps = planted_maps({DOG: np.zeros(60), RAIN: np.zeros(60)}, grid=longer, images=2)
    events = event_rows(("dog barks", 0.4, 0.8), clip="long.wav")
    samples = [align(maps, events, sample=number) for number in range(2)]
    pool = Alignment.concat([*samples, clip(0, 0.3)])
    curves = order_curves(pool.phrases)
    assert [len(draws[0]) for draws in curves] == [60, 60, HEARD]
    np.testing.assert_array_equal(curves[0][0], curves[1][0])
    assert abs(int(np.median(np.flatnonzero(curves[0][0]))) / 60 - 0.35 / 0.72) < 0.03
    assert abs(int(np.median(np.flatnonzero(curves[2][0]))) / HEARD - 0.5) < 0.03
