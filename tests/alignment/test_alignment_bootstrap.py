"""Intervals where phrases share recordings and clips, and many comparisons at once: by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from alignment_synthetic import COLUMNS, DOG, GRID, RAIN, event_rows, planted_maps, study
from scipy import stats

from attnviz.alignment import Alignment, align
from attnviz.alignment.bootstrap import Bootstrap, interval
from attnviz.alignment.comparing import BETTER, NEITHER, TOO_FEW, WORSE, adjusted, p_values, verdicts


def covered(make, *, simulations=250, two_way=True):
    """Share of simulated studies whose interval of the mean holds the true mean, 0."""
    hits = 0
    for seed in range(simulations):
        sources, clips, values = make(np.random.default_rng(seed))
        bootstrap = Bootstrap(sources, 300, seed, clips if two_way else None)
        low, high = interval(bootstrap.means(values[:, None]), np.array([len(values)]))
        hits += bool(low[0] <= 0 <= high[0])
    return hits / simulations


def phrases(rng, *, of_clip, of_source, clips=50, recordings=30):
    """Two phrases a clip, of recordings that recur; the shares of the variance that clips and recordings have."""
    clip = np.repeat(np.arange(clips), 2)
    source = np.unique(rng.integers(recordings, size=2 * clips), return_inverse=True)[1]
    effects = np.sqrt(of_clip) * rng.normal(size=clips)[clip]
    effects += np.sqrt(of_source) * rng.normal(size=recordings)[source]
    return source, clip, effects + np.sqrt(1 - of_clip - of_source) * rng.normal(size=2 * clips)


@pytest.mark.parametrize(("of_clip", "of_source"), [(0.5, 0.0), (0.0, 0.5), (0.4, 0.4), (0.0, 0.0)])
def test_coverage_where_phrases_share_clips_and_recordings(of_clip, of_source):
    share = covered(lambda rng: phrases(rng, of_clip=of_clip, of_source=of_source))
    assert 0.91 <= share <= 0.985


def test_recordings_alone_leave_out_what_a_clip_has_in_common():
    """Each phrase of a recording of its own: the sources alone cover too little, clips are what is drawn."""

    def make(rng):
        _, clip, values = phrases(rng, of_clip=0.5, of_source=0.0)
        return np.arange(len(clip)), clip, values

    assert covered(make, two_way=False) < 0.91
    assert covered(make) > 0.92


def test_which_ways_are_drawn():
    clips = np.array([0, 0, 1, 1])
    assert [way.tolist() for way in Bootstrap(np.arange(4), 1, 0, clips).ways] == [clips.tolist()]
    assert [way.tolist() for way in Bootstrap(np.array([0, 0, 0, 1]), 1, 0, np.arange(4)).ways] == [[0, 0, 0, 1]]
    crossed = Bootstrap(np.array([0, 1, 1, 0]), 1, 0, clips)
    assert len(crossed.ways) == 2
    assert crossed.count == 4
    assert crossed.clusters(np.array([[1.0, 1.0], [1.0, np.nan], [np.nan, np.nan], [1.0, np.nan]])).tolist() == [
        2,
        1,
    ]


def test_two_ways_vs_phrases_drawn_one_by_one():
    """A phrase counts as often as its recording is drawn, times how often its clip is."""
    sources, clips = np.array([0, 1, 1, 2, 0]), np.array([0, 0, 1, 1, 2])
    bootstrap = Bootstrap(sources, 30, 5, clips)
    weights = np.concatenate(list(bootstrap.weights()))[:, bootstrap.groups]
    rng = np.random.default_rng(5)
    drawn_sources, drawn_clips = (rng.integers(3, size=(30, 3)) for _ in range(2))
    for number, row in enumerate(weights):
        for phrase in range(5):
            of_source = int((drawn_sources[number] == sources[phrase]).sum())
            assert row[phrase] == of_source * int((drawn_clips[number] == clips[phrase]).sum())


# ---- ranges and pools that lack something ------------------------------------------------------------------


def clip_of(number, rng, *, spectrogram):
    onset = float(rng.uniform(0.05, 0.4))
    share = np.zeros(COLUMNS)
    share[int(onset / 0.02) : int((onset + 0.2) / 0.02)] = 1.0
    maps = planted_maps(
        {DOG: 0.05 + 0.9 * share, RAIN: rng.random(COLUMNS)},
        log_mel=rng.normal(size=(GRID.height, GRID.width)) if spectrogram else None,
    )
    events = event_rows(("dog barks", onset, onset + 0.2), ("rain falls", 0.3, 0.5), clip=f"{number}.wav")
    return align(maps, events)


def test_clips_with_and_without_a_spectrogram_are_pooled():
    """A resample may hold no clip with energy: its detection scores are unknown, and nothing is divided by 0."""
    rng = np.random.default_rng(0)
    result = Alignment.concat(clip_of(number, rng, spectrogram=number < 2) for number in range(8))
    pooled = result.pool(n_resamples=400, n_permutations=50)
    scores = pooled.scores.set_index(["method", "score"])
    assert scores.loc[("energy", "roc_auc"), "phrases"] == 4
    assert scores.loc[("map", "psds1"), "phrases"] == 16
    assert np.isfinite(scores.loc[("energy", "segment_f1"), "value"])
    assert result.summary()


def test_intervals_stay_within_what_a_score_can_be():
    rng = np.random.default_rng(1)
    result = Alignment.concat(clip_of(number, rng, spectrogram=True) for number in range(7))
    scores = result.pool(n_resamples=100, n_permutations=200).scores
    bounds = {"pearson": -1.0, "spearman": -1.0, "partial": -1.0}
    for row in scores.itertuples():
        if row.score.startswith("onset"):
            continue
        for end in (row.low, row.high, row.permutation_low, row.permutation_high):
            assert np.isnan(end) or bounds.get(row.score, 0.0) <= end <= 1.0, (row.method, row.score, end)


# ---- many comparisons --------------------------------------------------------------------------------------


def test_adjusted_p_values_vs_the_definition():
    rng = np.random.default_rng(2)
    values = np.append(rng.random(30) ** 2, [np.nan, 0.001])
    known = np.sort(values[~np.isnan(values)])
    for value, found in zip(values, adjusted(values), strict=True):
        if np.isnan(value):
            assert np.isnan(found)
            continue
        ranks = [known[place] * len(known) / (place + 1) for place in range(len(known)) if known[place] >= value]
        assert found == pytest.approx(min(1.0, *ranks))


def test_p_values_vs_a_t_test():
    """Of the mean of independent values the bootstrap's p-value is about that of a t-test."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(40, 4)) + np.array([0.0, 0.2, 0.4, 0.8])
    bootstrap = Bootstrap(np.arange(40), 4000, 0)
    means = values.mean(axis=0)
    found = p_values(means, bootstrap.means(values), np.full(4, 40))
    np.testing.assert_allclose(np.log(found), np.log(stats.ttest_1samp(values, 0.0).pvalue), rtol=0.2, atol=0.1)
    same = np.full((50, 2), [0.3, 0.0])
    assert p_values(same[0], same, np.array([9, 9])).tolist() == [0.0, 1.0]
    assert np.isnan(p_values(same[0], same, np.array([1, 1]))).all()
    assert np.isnan(p_values(np.array([np.nan]), np.full((10, 1), np.nan), np.array([9]))).all()


def test_verdicts_ask_the_interval_the_family_and_the_number_of_sources():
    found = verdicts([0.1, 0.1, 0.1, -0.3, np.nan, 0.0], [0.2, 0.2, 0.2, -0.1, np.nan, 0.2],
                     np.array([0.04, 0.06, np.nan, 0.01, np.nan, 0.01]), [9, 9, 5, 9, 9, 9])  # fmt: skip
    assert found.tolist() == [BETTER, NEITHER, TOO_FEW, WORSE, "", NEITHER]


def test_of_many_controls_that_differ_by_chance_few_are_called_better():
    """Twenty controls drawn as the map is: alone one in twenty would pass, together hardly any does."""

    def noise(shares, energy, rng):
        return {
            f"noise {number}": planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}, log_mel=None)
            for number in range(6)
        }

    pooled = study("noise", clips=10, controls=noise).pool(n_resamples=300, n_permutations=10)
    named = pooled.differences[pooled.differences["control"].str.startswith("noise")]
    assert pooled.comparisons == pooled.differences["p"].notna().sum() >= len(named) > 50
    assert not named["verdict"].isin([BETTER, WORSE]).any()
    assert (pooled.differences["p_adjusted"].dropna() >= pooled.differences["p"].dropna() - 1e-12).all()
    right = study("perfect", clips=10).pool(n_resamples=300, n_permutations=10).differences
    assert (right.query("score == 'roc_auc'")["verdict"] == BETTER).all()
