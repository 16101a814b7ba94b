from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from attnviz.alignment import (
    average_precision,
    mask_iou,
    onset_error,
    partial_correlation,
    pearson,
    pointing,
    roc_auc,
    spearman,
)
from attnviz.alignment.arrays import column_means, stretched
from attnviz.errors import MapsError

RANKED = (roc_auc, average_precision, pointing)
CORRELATED = (pearson, spearman)


def draw(seed, *, rows=12, columns=23, levels=None):
    """Curves, activities and energies; with few levels, full of ties."""
    rng = np.random.default_rng(seed)
    curves, energy = rng.normal(size=(2, rows, columns))
    share = rng.random((rows, columns)).round(1)
    if levels:
        curves, energy = np.floor(curves * levels), np.floor(energy * levels)
    share[:, 0], share[:, 1] = 0.0, 1.0
    return curves, share, energy


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_auc_and_precision_vs_scikit_learn(seed, levels):
    curves, share, _ = draw(seed, levels=levels)
    active = share >= 0.5
    pairs = list(zip(active, curves, strict=True))
    np.testing.assert_allclose(
        roc_auc(curves=curves, active=active), [roc_auc_score(a, c) for a, c in pairs], rtol=1e-12
    )
    np.testing.assert_allclose(
        average_precision(curves=curves, active=active),
        [average_precision_score(a, c) for a, c in pairs],
        rtol=1e-12,
    )


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_correlations_vs_scipy(seed, levels):
    curves, share, energy = draw(seed, levels=levels)
    rows = list(zip(curves, share, energy, strict=True))
    want = {
        pearson: [stats.pearsonr(c, s).statistic for c, s, _ in rows],
        spearman: [stats.spearmanr(c, s).statistic for c, s, _ in rows],
    }
    for score, values in want.items():
        np.testing.assert_allclose(score(curves=curves, activity=share), values, atol=1e-12)
    np.testing.assert_allclose(
        partial_correlation(curves=curves, activity=share, energy=energy),
        [by_residuals(*row) for row in rows],
        atol=1e-12,
    )


def by_residuals(curve, share, energy):
    design = np.column_stack([np.ones_like(energy), energy])
    left = [value - design @ np.linalg.lstsq(design, value)[0] for value in (curve, share)]
    return stats.pearsonr(*left).statistic


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=9))
def test_auc_and_precision_vs_counting(columns):
    """All pairs, and all thresholds, one at a time."""
    curve, active = (np.array(part) for part in zip(*columns, strict=True))
    auc, precision = roc_auc(curves=curve, active=active), average_precision(curves=curve, active=active)
    if active.all() or not active.any():
        assert np.isnan(auc)
        assert np.isnan(precision)
        return
    pairs = list(itertools.product(curve[active], curve[~active]))
    assert auc == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))
    total, recalled = 0.0, 0.0
    for threshold in sorted(set(curve.tolist()), reverse=True):
        found = active[curve >= threshold].sum()
        total += (found / active.sum() - recalled) * found / (curve >= threshold).sum()
        recalled = found / active.sum()
    assert precision == pytest.approx(total)


def test_rank_scores_ignore_monotone_changes():
    curves, share, _ = draw(0)
    for score, changed in itertools.product((roc_auc, average_precision), (curves * 3 - 7, np.exp(curves))):
        np.testing.assert_allclose(
            score(curves=changed, active=share >= 0.5), score(curves=curves, active=share >= 0.5)
        )
    np.testing.assert_allclose(
        roc_auc(curves=-curves, active=share >= 0.5), 1 - roc_auc(curves=curves, active=share >= 0.5)
    )


def test_permuted_columns_change_nothing():
    curves, share, _ = draw(1)
    order = np.random.default_rng(0).permutation(curves.shape[1])
    for score in CORRELATED:
        np.testing.assert_allclose(
            score(curves=curves[:, order], activity=share[:, order]), score(curves=curves, activity=share)
        )
    for score in RANKED:
        np.testing.assert_allclose(
            score(curves=curves[:, order], active=share[:, order] >= 0.5),
            score(curves=curves, active=share >= 0.5),
        )


def test_shapes_go_through():
    curves, share, energy = draw(2)
    for shape in [(23,), (1, 23), (2, 3, 23)]:
        size = int(np.prod(shape[:-1]))
        c, s, e = (part[:size].reshape(shape) for part in (curves, share, energy))
        assert roc_auc(curves=c, active=s >= 0.5).shape == shape[:-1]
        assert pearson(curves=c, activity=s).shape == shape[:-1]
        assert partial_correlation(curves=c, activity=s, energy=e).shape == shape[:-1]
        assert onset_error(curves=c, onsets=np.zeros(shape[:-1]), column_seconds=0.1).shape == shape[:-1]


@pytest.mark.parametrize("truth", [np.zeros(5), np.ones(5)])
def test_silent_and_whole_clips_are_undefined(truth):
    curve = np.arange(5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(np.isnan(score(curves=curve, active=truth)) for score in RANKED)
        assert all(np.isnan(score(curves=curve, activity=truth)) for score in CORRELATED)
        assert np.isnan(partial_correlation(curves=curve, activity=truth, energy=curve**2))
        assert np.isnan(mask_iou(heat=curve[None], mask=truth[None]))


def test_constant_curves():
    active = np.array([1, 0, 0, 0, 1])
    flat = np.full(5, 0.1 + 0.2)  # whose mean need not be the value itself
    assert roc_auc(curves=flat, active=active) == 0.5
    assert average_precision(curves=flat, active=active) == pytest.approx(0.4)
    assert pointing(curves=flat, active=active) == pytest.approx(0.4)
    assert all(np.isnan(score(curves=flat, activity=active)) for score in CORRELATED)
    assert np.isnan(onset_error(curves=flat, onsets=0.1, column_seconds=0.1))


def test_partial_correlation_at_its_edges():
    rng = np.random.default_rng(0)
    share, energy = rng.random((2, 30))
    curve = rng.random(30)
    flat = np.full(30, 3.0)
    assert partial_correlation(curves=curve, activity=share, energy=flat) == pytest.approx(
        pearson(curves=curve, activity=share)
    )
    loud = (5 * energy - 2).astype(np.float32)  # energy itself, but for rounding
    assert np.isnan(partial_correlation(curves=loud, activity=share, energy=energy))
    assert np.isnan(partial_correlation(curves=curve, activity=loud, energy=energy))
    both = energy + 0.1 * (share - share.mean())
    assert partial_correlation(curves=both, activity=share, energy=energy) == pytest.approx(1.0)


def test_pointing_hits_and_misses():
    active = np.array([0, 1, 1, 0])
    curves = np.array([[0, 3, 1, 2], [4, 3, 1, 2], [4, 4, 4, 0]])
    np.testing.assert_allclose(pointing(curves=curves, active=np.tile(active, (3, 1))), [1, 0, 2 / 3])


def test_onset_errors():
    curves = np.array([[0, 0, 4, 8, 1], [0, 0, 3.9, 8, 8], [8, 0, 0, 0, 8]])
    error = onset_error(curves=curves, onsets=[0.5, 0.5, 0.5], column_seconds=np.array([0.25, 0.25, 0.1]))
    np.testing.assert_allclose(error, [0.0, 0.25, -0.5])
    assert np.isnan(onset_error(curves=curves[0], onsets=np.nan, column_seconds=0.25))


def test_iou_by_hand():
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    assert mask_iou(heat=mask, mask=mask) == 1.0
    assert mask_iou(heat=1 - mask, mask=mask) == 0.0
    assert mask_iou(heat=[[9, 0, 0], [8, 0, 0]], mask=mask) == pytest.approx(1 / 3)
    # Two cells of six at random: expected 2/3 of a cell in common, taken in part: 2/3 of 2 + 4/3 beyond.
    assert mask_iou(heat=np.ones((2, 3)), mask=mask) == pytest.approx((2 / 3) / (2 + 4 / 3))


def test_ties_at_the_limit_are_taken_in_part():
    mask = np.array([[1, 1, 0, 0]])
    got = mask_iou(heat=[[9, 5, 5, 0]], mask=mask)  # one surely, one of two
    assert got == pytest.approx(1.5 / 2.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: roc_auc(curves=[0.1, np.nan, 2], active=[0, 1, 1]), "padding"),
        (lambda: roc_auc(curves=[0.1, 1, 2], active=[0, 1]), "shape"),
        (lambda: roc_auc(curves=[0.1, 1, 2], active=[0, 0.4, 1]), "fractions were given"),
        (lambda: pearson(curves=[], activity=[]), "shape"),
        (lambda: pearson(curves=["a"], activity=[1]), "not an array of numbers"),
        (lambda: partial_correlation(curves=[1, 2], activity=[0, 1], energy=[1, np.inf]), "not finite"),
        (lambda: onset_error(curves=[[1, 2]], onsets=0.5, column_seconds=1), "onsets of shape"),
        (lambda: mask_iou(heat=[[1, 2]], mask=[[0.3, 1]]), "fractions were given"),
    ],
)
def test_bad_arrays(call, message):
    with pytest.raises(MapsError, match=message):
        call()


def test_column_means_weigh_parts():
    values, weights = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(column_means(values, np.array([0, 1.5, 3]), np.ones(3)), [4 / 3, 8 / 3])
    np.testing.assert_allclose(column_means(values, np.array([0, 1.5, 3]), weights), [4 / 3, 2.0])
    assert np.isnan(column_means(values, np.arange(4), weights)[2])
    rng = np.random.default_rng(0)
    many = rng.random((2, 35))
    np.testing.assert_allclose(
        column_means(many, np.linspace(0, 35, 6), np.ones(35)), many.reshape(2, 5, 7).mean(axis=2)
    )


def test_stretching_keeps_a_line():
    line = np.arange(9.0)
    np.testing.assert_allclose(stretched(line, 18)[1:-1], np.arange(1, 17) / 2 - 0.25)
    assert stretched(line, 9) is line
    np.testing.assert_allclose(stretched(line, 3), [1, 4, 7])
