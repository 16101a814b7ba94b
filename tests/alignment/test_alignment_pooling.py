"""Pools: every fast path against one phrase, one resample, one exchange at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnviz.alignment import Alignment, partial_correlation, pearson, psds, roc_auc, segment_f1, spearman
from attnviz.alignment.arrays import stretched
from attnviz.alignment.bootstrap import Bootstrap, defined_units, interval
from attnviz.alignment.detection import DETECTION
from attnviz.alignment.exchange import EXCHANGED, exchange_rows, flipped_means, permutation_interval
from attnviz.alignment.methods import other_phrases
from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents
from attnviz.alignment.streamed import block_of, exchanging
from attnviz.alignment.streamed.collection import GivenDraws, collect
from attnviz.alignment.streamed.detecting import detection_of

STEP = 0.5


def phrase(rng, *, clip, source=None, columns=19, draws=1, label="x"):
    """A phrase of a clip of half-second columns, of one event, with curves of noise."""
    onset = rng.uniform(0, 0.6) * columns * STEP
    times = np.array([[onset, onset + rng.uniform(0.1, 0.3) * columns * STEP]])
    edges = np.arange(columns + 1) * STEP
    share = np.clip((np.minimum(edges[1:], times[0, 1]) - np.maximum(edges[:-1], times[0, 0])) / STEP, 0, 1)
    curves = {"map": (share + rng.normal(size=columns),)}
    if draws > 1:
        curves["random"] = tuple(rng.normal(size=columns).round(1) for _ in range(draws))
    events = PhraseEvents(clip, label, (0, 1), source, times, None, 0, 0)
    return AlignedPhrase(
        events, 0, columns * STEP, STEP, share, curves, rng.normal(size=columns), seeds={"random": draws}
    )


@pytest.fixture
def pool():
    """Seven clips of one to three phrases, of two lengths; draws differ."""
    rng = np.random.default_rng(3)
    return [
        phrase(rng, clip=f"{c}", source=f"s{(c + k) % 5}", columns=19 if c < 4 else 24, draws=2 + k)
        for c in range(7)
        for k in range(1 + c % 3)
    ]


def test_bootstrap_vs_one_resample_at_a_time():
    rng = np.random.default_rng(0)
    units = np.array([0, 0, 1, 2, 2, 2, 3])
    values = rng.normal(size=(7, 3))
    values[2, 0] = values[0, 1] = np.nan
    values[:, 2] = np.nan
    bootstrap = Bootstrap(units, 40, 7)
    got = bootstrap.means(values)
    drawn = [weights for chunk in bootstrap.weights() for weights in chunk]
    assert len(drawn) == len(got) == 40
    for weights, row in zip(drawn, got, strict=True):
        assert weights.sum() == 4
        rows = [i for i, unit in enumerate(units) for _ in range(weights[unit])]
        picked = pd.DataFrame(values[rows])
        np.testing.assert_allclose(row, picked.mean().to_numpy(), rtol=1e-12)
    assert defined_units(values, units).tolist() == [3, 4, 0]


def test_bootstrap_chunks_and_seeds(monkeypatch):
    units, values = np.arange(9), np.random.default_rng(0).normal(size=(9, 1))
    whole = Bootstrap(units, 25, 1).means(values)
    assert not np.array_equal(whole, Bootstrap(units, 25, 2).means(values))
    monkeypatch.setattr("attnviz.alignment.bootstrap._DRAWS_AT_ONCE", 20)
    np.testing.assert_allclose(Bootstrap(units, 25, 1).means(values), whole)


def test_intervals_cover():
    """Of 200 pools of 40 sources, about 95 % hold the true mean; sources of four phrases count once."""
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        units = np.repeat(np.arange(40), 4)
        values = (rng.normal(size=40)[units] + 0.1 * rng.normal(size=160))[:, None]
        low, high = interval(Bootstrap(units, 300, seed).means(values), np.array([40]))
        held += bool(low[0] <= 0 <= high[0])
    assert 178 <= held <= 198


def test_one_source_has_no_interval():
    low, high = interval(np.zeros((5, 2)), np.array([1, 2]))
    assert np.isnan(low[0])
    assert (low[1], high[1]) == (0, 0)


# ---- exchanges ---------------------------------------------------------------------------------------------


def literal_exchange(phrases, curves, donors):
    """One phrase at a time, with the public scores."""
    rows = []
    for donor in donors:
        scores = {name: [] for name in EXCHANGED}
        for one, other in zip(phrases, donor, strict=True):
            length = len(one.share)
            energy = stretched(phrases[other].energy, length)
            found = {name: [] for name in EXCHANGED}
            for draw in curves[other]:
                curve = stretched(draw, length)
                found["roc_auc"].append(roc_auc(curves=curve, active=one.active))
                found["pearson"].append(pearson(curves=curve, activity=one.share))
                found["spearman"].append(spearman(curves=curve, activity=one.share))
                # What is left of the map beside its own clip's energy, and of the activity beside this clip's.
                left = [
                    y - np.polyval(np.polyfit(x, y, 1), x) for x, y in ((energy, curve), (one.energy, one.share))
                ]
                found["partial"].append(np.corrcoef(*left)[0, 1] if np.ptp(curve) else np.nan)
            for name, values in found.items():
                scores[name].append(np.nanmean(values) if values else np.nan)
        rows.append([np.nanmean(scores[name]) for name in EXCHANGED])
    return np.array(rows)


def collected(phrases, folder):
    """The phrases as the pool reads them, with the draws of the control "random"."""
    collection = collect([block_of(phrases)], folder, 0)
    draws = [one.curves.get("random", ()) for one in phrases]
    collection.given["random"] = GivenDraws.kept_in(folder / "random", draws)
    return collection


def exchanged(phrases, folder, n_permutations=6):
    collection = collected(phrases, folder)
    return exchanging.exchanged_of(collection, np.arange(len(phrases)), n_permutations, folder, lambda share: None)


def donors_of(phrases, n_permutations):
    codes = np.unique([one.events.clip for one in phrases], return_inverse=True)[1]
    return [*exchange_rows(codes, n_permutations, 0)]


def test_exchanged_scores_vs_one_at_a_time(pool, tmp_path):
    """Two to four draws of a control, one of them constant, and a phrase without any."""
    pool[2] = replace(pool[2], curves={"map": pool[2].curves["map"]})
    pool[4] = replace(pool[4], curves=pool[4].curves | {"random": (np.ones(19), *pool[4].curves["random"])})
    curves = {method: [one.curves.get(method, ()) for one in pool] for method in ("map", "random")}
    curves["reversed"] = [tuple(draw[::-1] for draw in draws) for draws in curves["map"]]
    found = exchanged(pool, tmp_path)
    with warnings.catch_warnings(action="ignore"):  # constant curves
        for method, own in curves.items():
            expected = literal_exchange(pool, own, donors_of(pool, 6))
            np.testing.assert_allclose(found[method], expected, atol=1e-6, err_msg=method)


def test_nothing_exchanged_is_the_score_itself(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(exchanging, "exchange_rows", lambda codes, n, seed: iter([np.arange(len(codes))]))
    got = exchanged(pool, tmp_path)["map"][0]
    partial = [
        partial_correlation(curves=one.curves["map"][0], activity=one.share, energy=one.energy) for one in pool
    ]
    auc = [roc_auc(curves=one.curves["map"][0], active=one.active) for one in pool]
    assert got[EXCHANGED.index("partial")] == pytest.approx(np.mean(partial), abs=1e-6)
    assert got[EXCHANGED.index("roc_auc")] == pytest.approx(np.mean(auc), abs=1e-6)


def test_clips_are_exchanged_whole(pool):
    clips = np.array([one.events.clip for one in pool])
    donors = np.array(donors_of(pool, 200))
    assert donors.shape == (200, len(pool))
    for row in donors:
        given = {clip: set(clips[row[clips == clip]]) for clip in clips}
        assert all(len(from_clips) == 1 for from_clips in given.values())
        assert len(set.union(*given.values())) == 7  # each clip's maps go somewhere
    assert len({tuple(row) for row in donors}) > 150


def test_too_few_clips_are_not_exchanged(tmp_path):
    few = [phrase(np.random.default_rng(0), clip=clip, draws=2) for clip in "abcd"]
    assert donors_of(few, 10) == []
    assert {rows.shape for rows in exchanged(few, tmp_path).values()} == {(0, 4)}


def test_permutation_interval_holds_what_permuting_allows():
    permuted = 0.6 + np.linspace(-0.1, 0.1, 41)
    low, high = permutation_interval(0.55, permuted)
    assert (low, high) == pytest.approx((0.455, 0.645))
    assert np.isnan(permutation_interval(0.5, np.array([np.nan]))).all()
    skewed = np.concatenate(
        [np.zeros(90), np.ones(10)]
    )  # a score of 0.9 above its level is rare, 0.1 below is not
    low, high = permutation_interval(0.5, skewed)
    assert low == pytest.approx(0.5 - 0.9)
    assert high == pytest.approx(0.5 + 0.1)


def test_signs_of_seeds():
    assert len(flipped_means(np.zeros((5, 4)), 10, 0)) == 0
    by_seed = np.full((8, 4), 0.6)
    by_seed[:, 1:] = 0.1
    flipped = flipped_means(by_seed, 4000, 0)
    np.testing.assert_allclose(np.abs(flipped).max(axis=0), 0.1)
    np.testing.assert_allclose(flipped.mean(axis=0), 0, atol=0.005)
    np.testing.assert_allclose(flipped.std(axis=0), 0.1 / np.sqrt(8), rtol=0.05)


def test_other_phrases_are_of_other_clips():
    rng = np.random.default_rng(0)
    phrases = [phrase(rng, clip=clip) for clip in "abacbbda"]
    clips = np.array(list("abacbbda"))
    drawn = np.array([other_phrases(phrases, seed) for seed in range(400)])
    assert (clips[drawn] != clips).all()
    for place, clip in enumerate(clips):
        counts = np.bincount(drawn[:, place], minlength=8)
        assert (counts[clips != clip] > 400 / 8 / 2).all()  # evenly


# ---- detection ---------------------------------------------------------------------------------------------


def by_the_public_functions(phrases, curves):
    scores, rows = {}, []
    for number, (one, draws) in enumerate(zip(phrases, curves, strict=True)):
        for k, curve in enumerate(draws):
            name = f"{number}/{k}"
            low, high = curve.min(), curve.max()
            scores[name] = ((curve - low) / (high - low) if high > low else np.ones(len(curve)))[:, None]
            rows += [{"clip": name, "label": "x", "onset": a, "offset": b} for a, b in one.events.times]
    lengths = {name: len(frames) for name, frames in scores.items()}
    given = {
        "scores": scores,
        "ground_truth": pd.DataFrame(rows),
        "durations": {name: length * STEP for name, length in lengths.items()},
        "edges": {name: np.arange(length + 1) * STEP for name, length in lengths.items()},
        "classes": ["x"],
    }
    return psds(**given).value, segment_f1(**given).value


@pytest.mark.parametrize("method", ["map", "random", "constant"])
def test_detection_vs_psds_and_segment_f1(pool, method, tmp_path):
    if method == "map":  # some right ones, so that something is found
        pool = [
            replace(one, curves=one.curves | {"map": (one.share,)}) if i % 2 else one for i, one in enumerate(pool)
        ]
    flat = [(np.zeros(len(one.share)),) for one in pool]
    curves = flat if method == "constant" else [one.curves[method] for one in pool]
    units = np.arange(len(pool))
    got = detection_of(collected(pool, tmp_path), method, units, Bootstrap(units, 5, 0))
    np.testing.assert_allclose(got.values, by_the_public_functions(pool, curves), rtol=1e-12)
    assert got.phrases == len(pool)
    weights = next(Bootstrap(units, 5, 0).weights())
    for row, times in zip(got.replicates, weights, strict=True):
        again = [i for i, count in enumerate(times) for _ in range(count)]
        picked = [pool[i] for i in again], [curves[i] for i in again]
        np.testing.assert_allclose(row, by_the_public_functions(*picked), rtol=1e-12)
    if method == "map":
        assert 0 < got.values[0] < 1


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_detection_at_many_false_positives(digits, tmp_path):
    """Detections grow, join and turn from right to wrong; thresholds are shared by clips where digits are few."""
    rng = np.random.default_rng(digits)
    edges = np.arange(42) * STEP
    phrases = []
    for number in range(40):
        times = np.sort(rng.uniform(0, 20, 4)).reshape(2, 2)
        inside = [np.minimum(edges[1:], offset) - np.maximum(edges[:-1], onset) for onset, offset in times]
        share = np.clip(inside, 0, STEP).sum(axis=0) / STEP
        curve = (rng.uniform(0, 8) * share + rng.normal(size=41)).round(digits)
        events = PhraseEvents(f"{number}", "x", (0, 1), None, times, None, 0, 0)
        phrases.append(AlignedPhrase(events, 0, 41 * STEP, STEP, share, {"map": (curve,)}, share))
    units = np.arange(len(phrases))
    got = detection_of(collect([block_of(phrases)], tmp_path, 0), "map", units, Bootstrap(units, 20, 0))
    curves = [one.curves["map"] for one in phrases]
    np.testing.assert_allclose(got.values, by_the_public_functions(phrases, curves), rtol=1e-12)
    assert 0.02 < got.values[0] < 0.98
    for row, times in zip(got.replicates[:4], next(Bootstrap(units, 20, 0).weights()), strict=False):
        again = [number for number, count in enumerate(times) for _ in range(count)]
        picked = [phrases[number] for number in again], [curves[number] for number in again]
        np.testing.assert_allclose(row, by_the_public_functions(*picked), rtol=1e-12)


def test_a_detection_counts_when_false_positives_join(tmp_path):
    """It is found while there are too many false positives; at a lower threshold, these are one."""
    edges = np.arange(161) * STEP  # two clips of 80 s: four false positives within the limit
    found, joined = np.zeros(160), np.zeros(160)
    found[10:20], joined[100:122:2] = 0.7, 0.9
    joined[101:121:2] = 0.5
    phrases = []
    for name, curve in (("a", found), ("b", joined)):
        times = np.array([[5.0, 10.0]])
        share = np.clip(np.minimum(edges[1:], 10.0) - np.maximum(edges[:-1], 5.0), 0, STEP) / STEP
        events = PhraseEvents(name, "x", (0, 1), None, times, None, 0, 0)
        phrases.append(AlignedPhrase(events, 0, 160 * STEP, STEP, share, {"map": (curve,)}, share))
    units = np.arange(2)
    got = detection_of(collect([block_of(phrases)], tmp_path, 0), "map", units, Bootstrap(units, 3, 0))
    expected = by_the_public_functions(phrases, [one.curves["map"] for one in phrases])
    np.testing.assert_allclose(got.values, expected, rtol=1e-12)
    assert got.values[0] > 0.3


def test_detection_of_nothing(pool, tmp_path):
    got = detection_of(collected(pool, tmp_path), "map", np.empty(0, int), Bootstrap(np.empty(0, int), 3, 0))
    assert np.isnan(got.values).all()
    assert got.replicates.shape == (3, len(DETECTION))


# ---- the pool as a whole -----------------------------------------------------------------------------------


def test_pooled_means_are_of_phrases_not_draws(pool):
    result = Alignment(tuple(pool), "mean")
    table = result.table[result.table["method"] == "random"]
    by_phrase = table.groupby("phrase")["roc_auc"].mean()
    scores = result.pooled.scores.set_index(["method", "score"])
    assert scores.loc[("random", "roc_auc"), "value"] == pytest.approx(by_phrase.mean())
    assert scores.loc[("random", "roc_auc"), "sources"] == 5
    gap = result.table[result.table["method"] == "map"].set_index("phrase")["roc_auc"] - by_phrase
    differences = result.pooled.differences.set_index(["score", "control"])
    assert differences.loc[("roc_auc", "random"), "value"] == pytest.approx(gap.mean())
    assert scores.loc[("constant", "average_precision"), "value"] == pytest.approx(
        scores.loc[("map", "average_precision"), "chance"]
    )


def test_the_pool_does_not_depend_on_the_order_of_its_phrases(pool):
    one, two = (Alignment(tuple(phrases), "mean") for phrases in (pool, pool[::-1]))
    own = [result.table[result.table["method"] != "other_clip"] for result in (one, two)]
    sums = [table.groupby(["method"])[["roc_auc", "partial", "onset_error"]].sum() for table in own]
    pd.testing.assert_frame_equal(*sums)


def test_few_sources_get_no_verdict(pool):
    result = Alignment(tuple(pool), "mean")
    verdicts = result.pooled.differences.set_index(["score", "control"])["verdict"]
    assert verdicts[("roc_auc", "constant")] == "too few sources to tell"
    more = [phrase(np.random.default_rng(i), clip=f"{i}", source=f"{i}") for i in range(8)]
    right = [AlignedPhrase(o.events, 0, o.seconds, STEP, o.share, {"map": (o.share,)}, o.energy) for o in more]
    verdicts = Alignment(tuple(right), "mean").pooled.differences.set_index(["score", "control"])["verdict"]
    assert verdicts[("roc_auc", "constant")] == "better"
    assert verdicts[("onset_distance", "energy")] == "better"  # lower is better
    assert verdicts[("psds1", "energy")] == "better"
    wrong = [
        AlignedPhrase(o.events, 0, o.seconds, STEP, o.share, {"map": (1 - o.share,)}, o.share + 0.1 * o.energy)
        for o in more
    ]
    verdicts = Alignment(tuple(wrong), "mean").pooled.differences.set_index(["score", "control"])["verdict"]
    assert verdicts[("roc_auc", "energy")] == "worse"
    assert verdicts[("onset_distance", "energy")] == "worse"


def test_a_pool_of_nothing_has_no_scores():
    rng = np.random.default_rng(0)
    whole = phrase(rng, clip="a")
    whole = AlignedPhrase(whole.events, 0, whole.seconds, STEP, np.ones(19), whole.curves, whole.energy)
    for phrases in ((), (whole,)):
        result = Alignment(phrases, "mean")
        assert result.pooled.scores["value"].isna().all()
        assert set(result.pooled.scores["phrases"]) == {0}
        assert set(result.pooled.differences["verdict"]) == {""}
        assert result.counts["scored"] == 0


def test_the_same_seed_gives_the_same_pool(pool):
    one, two = (Alignment(tuple(pool), "mean", seed=4).pool(n_resamples=50) for _ in range(2))
    pd.testing.assert_frame_equal(one.scores, two.scores)
    other = Alignment(tuple(pool), "mean", seed=5).pool(n_resamples=50)
    assert not one.scores["low"].equals(other.scores["low"])


def test_controls_of_other_lengths_are_summarized(pool):
    text = Alignment(tuple(pool), "mean").summary()
    assert "columns of 500 ms" in text
    for name in ("ROC-AUC", "PSDS1", "segment F1", "other clip", "bootstrap over 5 source recordings"):
        assert name in text


_POOLING = """
import numpy as np
import torch
from alignment_synthetic import COLUMNS, DOG, event_rows, planted_maps
from attnviz.alignment import align

torch.set_num_threads(1)
torch.get_num_threads()  # as any operation does: PyTorch applies the number at its first use
curve = np.random.default_rng(0).random(COLUMNS)
align(planted_maps({DOG: curve}), event_rows(("dog barks", 0.1, 0.3))).pool(n_resamples=5, n_permutations=5)
print(torch.get_num_threads())
"""


def test_pooling_leaves_the_threads_as_they_were():
    """In a process of its own: numba changes those of PyTorch at its first parallel call."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", _POOLING], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1"]
