from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from evaluation.fixtures.make_peer_fixtures import sets

from attnviz import evaluation as ev
from attnviz.errors import EvaluationError, FewClipsWarning
from attnviz.evaluation import Moments

PEERS = json.loads((Path(__file__).parent / "fixtures" / "peer_values.json").read_text("utf-8"))["cases"]
DISTANCES = {
    "frechet": ev.frechet_distance,
    "kad": ev.kernel_audio_distance,
    "kid": ev.kernel_inception_distance,
    "infinity": lambda x, y, **k: ev.frechet_distance_infinity(x, y, n_draws=2, n_sizes=3, **k),
}


def value(function, *arrays, **settings):
    return function(*arrays, n_resamples=0, **settings).value


def normal(seed, clips, columns, spread=1.0):
    return np.random.default_rng(seed).normal(size=(clips, columns)) * spread


def rotation(columns, seed=0):
    return scipy.linalg.qr(normal(seed, columns, columns))[0]


def exactly(rows, mean, covariance):
    """Return the rows moved and mixed so that their sample mean and covariance are exactly these."""
    white = (rows - rows.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


# Equality with independent implementations


@pytest.mark.parametrize("name", PEERS)
def test_values_are_those_of_other_implementations(name):
    first, second = sets(*PEERS[name]["sizes"])
    theirs, torchmetrics, kadtk = (PEERS[name][peer] for peer in ("audioldm_eval", "torchmetrics", "kadtk"))

    def equal(found, expected):
        assert found == pytest.approx(expected, rel=1e-6)

    equal(value(ev.frechet_distance, first, second), theirs["frechet_distance"])
    equal(value(ev.frechet_distance, first, second), torchmetrics["fid"])
    equal(value(ev.inception_score, first), torchmetrics["inception_score"])
    for splits in (1, 10):
        equal(value(ev.inception_score, first, splits=splits), theirs[f"inception_score_{splits}"])
    equal(value(ev.kernel_audio_distance, first, second, bandwidth=kadtk["bandwidth"]), kadtk["kad"])
    equal(ev.median_distance(second), kadtk["bandwidth"])
    equal(value(ev.kernel_audio_distance, first, second), kadtk["kad"])
    if len(first) == len(second):
        for convention in ("softmax", "sigmoid"):
            kl = value(ev.kl_divergence, first, second, convention=convention)
            equal(kl, theirs[f"kullback_leibler_divergence_{convention}"])
        equal(value(ev.kl_divergence, first, second, epsilon=0.0), torchmetrics["kl"])
        equal(value(ev.kernel_inception_distance, first, second), theirs["kernel_inception_distance"])
        equal(value(ev.kernel_inception_distance, first, second), torchmetrics["kid"])
        equal(value(ev.clap_score, first, second), torchmetrics["cosine"])


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_of_gaussians_with_shared_axes(seed):
    """Their covariances commute, so that the distance is that of the standard deviations."""
    rng = np.random.default_rng(seed)
    columns, axes = 5, rotation(5, seed)
    means, spreads = rng.normal(size=(2, columns)), rng.uniform(0.1, 3.0, size=(2, columns))
    first, second = (
        exactly(normal(seed + i, 40 + 7 * i, columns), means[i], axes * spreads[i] ** 2 @ axes.T) for i in range(2)
    )
    expected = np.square(means[0] - means[1]).sum() + np.square(spreads[0] - spreads[1]).sum()
    assert value(ev.frechet_distance, first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("clips", "columns"), [((60, 45), 8), ((300, 200), 64), ((40, 25), 3)])
def test_frechet_distance_vs_matrix_square_root(clips, columns):
    first, second = sets(columns, *clips, columns)
    covariances = np.cov(first.T), np.cov(second.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    apart = first.mean(axis=0) - second.mean(axis=0)
    expected = apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    assert value(ev.frechet_distance, first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_singular_covariances():
    """Two planes at an angle of 60 degrees that share one axis: a root of the product would be complex."""
    flat = exactly(normal(0, 50, 2), np.zeros(2), np.eye(2))
    tilted = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(np.pi / 3), np.sin(np.pi / 3)]])
    distance = ev.frechet_distance(flat @ np.eye(2, 3), flat @ tilted, n_resamples=5)
    assert distance.value == pytest.approx(2 + 2 - 2 * (1 + np.cos(np.pi / 3)), rel=1e-9)
    few = normal(1, 6, 40)
    with pytest.warns(FewClipsWarning, match="at least 41 evaluated"):
        assert value(ev.frechet_distance, few, few, allow_few=True) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_vs_loops():
    x, y, width = normal(0, 5, 3), normal(1, 7, 3), 1.3
    kernels = {
        "kad": lambda a, b: np.exp(-((a - b) @ (a - b)) / (2 * width**2)),
        "kid": lambda a, b: (a @ b / 3 + 1) ** 3,
    }
    for name, k in kernels.items():
        within = [np.mean([k(a, b) for a, b in itertools.permutations(rows, 2)]) for rows in (x, y)]
        expected = sum(within) - 2 * np.mean([k(a, b) for a, b in itertools.product(x, y)])
        settings = {"bandwidth": width} if name == "kad" else {}
        scale = 100 if name == "kad" else 1
        assert value(DISTANCES[name], x, y, **settings) == pytest.approx(scale * expected, rel=1e-9)


def test_kernels_do_not_depend_on_blocks(monkeypatch):
    x, y = sets(0, 50, 37, 4)
    whole = ev.kernel_audio_distance(x, y, n_resamples=20)
    monkeypatch.setattr("attnviz.evaluation.kernels._VALUES_AT_ONCE", 111)
    parts = ev.kernel_audio_distance(x, y, n_resamples=20)
    assert (parts.value, parts.low, parts.high) == pytest.approx((whole.value, whole.low, whole.high), rel=1e-9)


def test_inception_score_of_known_distributions():
    sure = np.eye(5)[np.arange(20) % 5]
    assert value(ev.inception_score, sure, given="probabilities") == pytest.approx(5)
    assert value(ev.inception_score, sure[:1].repeat(20, axis=0), given="probabilities") == pytest.approx(1)
    assert value(ev.inception_score, np.full((20, 5), 0.2), given="probabilities") == pytest.approx(1)
    logits = normal(0, 30, 6)
    probabilities = torch.tensor(logits).softmax(1)
    assert value(ev.inception_score, probabilities, given="probabilities") == pytest.approx(
        value(ev.inception_score, logits), rel=1e-12
    )


# What must not change a value


@pytest.mark.parametrize("name", ["frechet", "kad", "kid"])
def test_rotation_and_order_change_nothing(name):
    first, second = sets(4, 60, 70, 6)
    before = value(DISTANCES[name], first, second)
    turned = rotation(6)
    assert value(DISTANCES[name], first @ turned, second @ turned) == pytest.approx(before, rel=1e-9)
    order = np.random.default_rng(0).permutation(60)
    assert value(DISTANCES[name], first[order], second) == pytest.approx(before, rel=1e-9)
    if name != "kad":  # its bandwidth is that of the reference
        assert value(DISTANCES[name], second, first) == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("name", ["frechet", "kad", "infinity"])
def test_moving_both_sets_changes_nothing(name):
    first, second = sets(5, 60, 70, 6)
    before = value(DISTANCES[name], first, second)
    assert value(DISTANCES[name], first + 100, second + 100) == pytest.approx(before, rel=1e-7)


def test_moving_one_set_adds_the_squared_distance():
    first, moved = normal(0, 50, 4), np.array([3.0, 0.0, -4.0, 0.0])
    assert value(ev.frechet_distance, first, first) == pytest.approx(0, abs=1e-12)
    assert value(ev.frechet_distance, first + moved, first) == pytest.approx(25, rel=1e-12)
    centred = first - first.mean(axis=0)
    assert value(ev.frechet_distance, 3 * centred, centred) == pytest.approx(4 * np.trace(np.cov(first.T)))


def test_more_columns_than_clips_are_rotated_into_their_span():
    first, second = sets(6, 9, 11, 50)
    with pytest.warns(FewClipsWarning):
        wide = ev.frechet_distance(first, second, allow_few=True, n_resamples=20)
    basis = scipy.linalg.orth(np.concatenate([first, second]).T)
    with pytest.warns(FewClipsWarning):
        narrow = ev.frechet_distance(first @ basis, second @ basis, allow_few=True, n_resamples=20)
    assert (wide.value, wide.low) == pytest.approx((narrow.value, narrow.low), rel=1e-9)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (50,), (17, 60), (30, 31, 99)])
def test_moments_of_parts_are_those_of_the_whole(cuts):
    rows = sets(7, 100, 5, 6)[0] + 1e4  # far from 0: sums of squares would lose the variance
    parts = [Moments.of(part) for part in np.split(rows, cuts)]
    whole = Moments.merge(parts)
    assert whole.count == 100
    np.testing.assert_allclose(whole.mean, rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(whole.covariance, np.cov(rows.T), rtol=1e-9, atol=1e-9)
    again, grouped = Moments.merge(parts), Moments.merge([Moments.merge(parts[:2]), *parts[2:]])
    assert np.array_equal(again.scatter, whole.scatter)
    assert np.array_equal(grouped.scatter, whole.scatter)
    other = normal(1, 80, 6)
    streamed = ev.frechet_distance(whole, Moments.of(other))
    assert streamed.value == pytest.approx(value(ev.frechet_distance, rows, other), rel=1e-9)
    assert np.isnan(streamed.low)
    assert (streamed.n, streamed.n_reference, streamed.needed) == (100, 80, 7)
    assert ev.frechet_distance(whole, other).value == pytest.approx(streamed.value, rel=1e-9)


# Statistics


@pytest.mark.parametrize("name", ["kad", "kid"])
def test_kernel_distances_are_unbiased(name):
    """Their mean over small sets of one distribution is 0, where the biased estimate has a mean far above it."""
    found = [value(DISTANCES[name], normal(i, 8, 3), normal(1000 + i, 6, 3)) for i in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert min(found) < 0 < max(found)


@pytest.mark.parametrize("vary", ["evaluated", "both"])
def test_extrapolation_removes_the_bias(vary):
    """The truth is 9. The reference is so large in the first case that its own bias does not matter."""
    sizes = (40, 4000) if vary == "evaluated" else (40, 60)
    plain, extrapolated = [], []
    for i in range(40):
        pair = normal(i, sizes[0], 5) + np.array([3.0, 0, 0, 0, 0]), normal(1000 + i, sizes[1], 5)
        plain.append(value(ev.frechet_distance, *pair))
        extrapolated.append(value(ev.frechet_distance_infinity, *pair, vary=vary, n_draws=2, n_sizes=3))
    error = np.std(extrapolated) / np.sqrt(40)
    assert abs(np.mean(extrapolated) - 9) < 2.5 * error
    assert np.mean(plain) - 9 > 2 * abs(np.mean(extrapolated) - 9)


def test_extrapolation_says_how_many_clips_the_distance_needs():
    first, second = normal(0, 200, 12) + 0.3, normal(1, 200, 12)
    found = ev.frechet_distance_infinity(first, second, n_resamples=0)
    assert found.needed == 26
    assert found.details["r_squared"] > 0.9
    assert found.details["slope"] / found.details["clips_for_5_percent"] <= 0.05 * found.value


def coverage(draw, truth, function, repetitions=60, **settings):
    inside = 0
    for i in range(repetitions):
        estimate = function(*draw(i), n_resamples=100, seed=i, **settings)
        assert estimate.low <= estimate.value <= estimate.high
        inside += estimate.low <= truth <= estimate.high
    return inside / repetitions


@pytest.mark.parametrize("name", ["frechet", "kad", "kid"])
def test_intervals_hold_the_expected_value(name):
    """The nominal share is 0.95, and 400 repetitions have 0.92 to 0.94."""

    def draw(i):
        return normal(i, 30, 3) + np.array([1.5, 0, 0]), normal(5000 + i, 40, 3)

    truth = np.mean([value(DISTANCES[name], *draw(i)) for i in range(200, 500)])
    assert coverage(draw, truth, DISTANCES[name], repetitions=40) >= 0.85


def test_intervals_of_means_and_inception_score_hold_the_expected_value():
    def draw(i):
        return (normal(i, 40, 4, spread=2.0),)

    truth = np.mean([value(ev.inception_score, *draw(i)) for i in range(200, 600)])
    assert coverage(draw, truth, ev.inception_score, repetitions=200) >= 0.87
    fixed = normal(9, 1, 4).repeat(40, axis=0)
    truth = np.mean([value(ev.kl_divergence, *draw(i), fixed) for i in range(200, 600)])
    assert coverage(lambda i: (*draw(i), fixed), truth, ev.kl_divergence) >= 0.85


def test_clips_of_a_unit_are_drawn_together():
    clips = normal(0, 20, 3)
    copied, other = np.repeat(clips, 5, axis=0), normal(1, 100, 3)
    for function in (ev.frechet_distance, ev.kernel_audio_distance):
        alone = function(copied, other)
        together = function(copied, other, units=np.repeat(np.arange(20), 5))
        assert together.value == alone.value
        assert together.high - together.low > 1.2 * (alone.high - alone.low)
    scores = ev.clap_score(copied, np.ones((100, 3)), units=[f"prompt {i // 5}" for i in range(100)])
    assert scores.high - scores.low > 1.5 * np.subtract(
        *[getattr(ev.clap_score(copied, np.ones((100, 3))), end) for end in ("high", "low")]
    )


def test_a_seed_gives_the_same_interval():
    pair = sets(8, 40, 30, 4)
    for function in DISTANCES.values():
        one, two, three = (function(*pair, n_resamples=20, seed=seed) for seed in (1, 1, 2))
        assert (one.low, one.high) == (two.low, two.high)
        assert one.low != three.low


# Bad input


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        (
            (normal(0, 4, 4), normal(1, 9, 4)),
            {},
            "at least 5 evaluated and 5 reference clips.*are 4 evaluated and 9.*KAD",
        ),
        ((normal(0, 9, 4), normal(1, 2, 4)), {}, "2 reference clips"),
        ((normal(0, 1, 4), normal(1, 9, 4)), {"allow_few": True}, "evaluated has 1 clip; at least 2"),
        ((normal(0, 9, 4), normal(1, 9, 5)), {}, "4 columns and reference 5.*same embedder"),
        (
            (normal(0, 9, 4), np.full((9, 4), np.nan)),
            {},
            "reference has values that are NaN.*9 of 9.*0, 1, 2, 3, 4",
        ),
        ((normal(0, 9, 4)[0], normal(1, 9, 4)), {}, r"the shape \(4,\); expected \(clips, columns\)"),
        (("dog", normal(1, 9, 4)), {}, "evaluated is not an array of real numbers"),
        ((normal(0, 9, 4) * 1j, normal(1, 9, 4)), {}, "not an array of real numbers"),
        ((np.zeros((0, 4)), normal(1, 9, 4)), {}, "evaluated has 0 clips"),
        ((normal(0, 9, 4), normal(1, 9, 4)), {"units": [1, 2]}, "units has 2 values; one for each of 9 clips"),
        ((normal(0, 9, 4), normal(1, 9, 4)), {"n_resamples": 10**9}, "n_resamples is 1000000000"),
        ((Moments.of(normal(0, 1, 4)), normal(1, 9, 4)), {}, "a covariance needs at least 2"),
    ],
)
def test_bad_sets_are_refused(arrays, settings, message):
    with pytest.raises(EvaluationError, match=message):
        ev.frechet_distance(*arrays, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ev.frechet_distance_infinity(normal(0, 9, 4), normal(1, 50, 4)),
            "at least 10 evaluated and 5 reference clips.*are 9 evaluated and 50",
        ),
        (lambda: ev.frechet_distance_infinity(normal(0, 9, 2), normal(1, 9, 2), vary="reference"), "vary is"),
        (lambda: ev.kernel_audio_distance(normal(0, 9, 2), np.ones((9, 2))), "median distance .* is 0"),
        (lambda: ev.kernel_audio_distance(normal(0, 9, 2), normal(1, 9, 2), bandwidth=-1.0), "bandwidth is -1"),
        (lambda: ev.kernel_audio_distance(normal(0, 1, 2), normal(1, 9, 2)), "evaluated has 1 clip;"),
        (lambda: ev.inception_score(normal(0, 9, 2), given="probabilities"), "probabilities are in"),
        (lambda: ev.inception_score(np.ones((9, 2)), given="probabilities"), "sum to 2 in row 0.*sigmoid"),
        (lambda: ev.inception_score(normal(0, 9, 2), splits=10), "splits is 10"),
        (lambda: ev.inception_score(normal(0, 9, 2), given="scores"), "given is 'scores'"),
        (lambda: ev.kl_divergence(normal(0, 9, 2), normal(0, 8, 2)), r"\(9, 2\) and reference \(8, 2\)"),
        (lambda: ev.kl_divergence(normal(0, 9, 2), normal(0, 9, 2), convention="both"), "convention is 'both'"),
        (
            lambda: ev.kl_divergence([[0.0, 1.0]], [[0.5, 0.5]], given="probabilities", epsilon=0.0),
            "pair 0 has an infinite divergence",
        ),
        (lambda: ev.clap_score(normal(0, 2, 2), np.zeros((2, 2))), "text has an embedding of zeros in row 0"),
        (lambda: Moments.merge([]), "parts is empty"),
        (lambda: Moments.merge([Moments.of(normal(0, 3, 2)), Moments.of(normal(0, 3, 4))]), "2 and 4 columns"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()


def test_arrays_of_other_kinds():
    first, second = sets(10, 40, 30, 4)
    expected = value(ev.frechet_distance, first.astype(np.float32).astype(float), second)
    assert value(ev.frechet_distance, torch.tensor(first, dtype=torch.float32), second.tolist()) == expected
    half = value(ev.kernel_audio_distance, first.astype(np.float16), second)
    assert half == pytest.approx(value(ev.kernel_audio_distance, first, second), rel=1e-2)
