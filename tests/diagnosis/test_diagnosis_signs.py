"""The numbers behind the findings, against literal computation and known values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from attnviz.diagnosis.signs import (
    clipped_share,
    entropy_share,
    moran,
    reconstruction_error,
    relative_difference,
    total_variation,
)

RNG = np.random.default_rng(3)


def literal_moran(values):
    rows, columns = values.shape
    mean = np.nanmean(values)
    total = weights = 0.0
    for row in range(rows):
        for column in range(columns):
            for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                other = (row + down, column + across)
                if not (0 <= other[0] < rows and 0 <= other[1] < columns):
                    continue
                if np.isnan(values[row, column]) or np.isnan(values[other]):
                    continue
                weights += 1
                total += (values[row, column] - mean) * (values[other] - mean)
    known = values[~np.isnan(values)]
    return known.size / weights * total / ((known - mean) ** 2).sum()


def test_moran_vs_literal():
    values = RNG.random((5, 9))
    assert moran(values) == pytest.approx(literal_moran(values))
    values[1, 2:5] = np.nan
    assert moran(values) == pytest.approx(literal_moran(values))


def test_moran_of_known_patterns():
    ramp = np.broadcast_to(np.arange(64.0), (16, 64))
    assert moran(ramp) > 0.95
    assert moran(np.indices((5, 9)).sum(axis=0) % 2 * 1.0) == pytest.approx(-1, abs=0.01)
    noise = [moran(np.random.default_rng(seed).random((16, 64))) for seed in range(40)]
    assert np.mean(noise) == pytest.approx(-1 / 1023, abs=0.01)
    signal = np.repeat(RNG.normal(size=(4, 16)), 4, axis=0).repeat(4, axis=1)
    mixed = moran(signal + RNG.normal(size=(16, 64)))
    assert 0.2 < mixed < 0.5  # half of the variance is signal, of Moran's I three quarters
    assert moran(3 * signal + 7) == pytest.approx(moran(signal))
    assert np.isnan(moran(np.full((4, 6), 0.1, dtype=np.float32)))
    assert np.isnan(moran(np.full((4, 6), np.nan)))
    assert np.isnan(moran(np.array([[1.0]])))


def test_entropy_vs_scipy():
    values = RNG.random((5, 9))
    assert entropy_share(values) == pytest.approx(stats.entropy(values.ravel()) / np.log(45))
    assert entropy_share(7 * values) == pytest.approx(entropy_share(values))
    assert entropy_share(np.ones((3, 4))) == 1.0
    assert entropy_share(np.eye(1, 12)) == 0.0
    assert np.isnan(entropy_share(np.zeros((3, 4))))
    fifth = np.ones(1024)
    fifth[:205] = 1.3
    assert entropy_share(fifth[None]) == pytest.approx(0.9991, abs=5e-5)  # the threshold's own source


def test_total_variation_of_known_distributions():
    one, other = RNG.dirichlet(np.ones(6), 10).T, RNG.dirichlet(np.ones(6), 10).T
    assert total_variation(one, one) == 0.0
    assert total_variation(one, other) == pytest.approx(0.5 * np.abs(one - other).sum(axis=0).mean())
    # Keys that were not kept are one more key: the distance is at most that of all, and exact where they agree.
    assert total_variation(one[:3], other[:3]) <= total_variation(one, other) + 1e-12
    assert total_variation(np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])) == 1.0


def test_plateaus_are_counted():
    sound = RNG.normal(size=(256, 512)) - 5
    assert clipped_share(sound) == 1 / sound.size
    level = np.quantile(sound, 0.9)
    assert clipped_share(np.minimum(sound, level)) == pytest.approx(0.1, abs=1e-3)
    loud = sound + 8  # beyond the ceiling of ln 200 in part: the image cuts it off
    assert clipped_share(loud) == pytest.approx((loud >= np.log(200) - 1e-4).mean())
    assert clipped_share(np.zeros((4, 6))) == 1.0


def test_decibels():
    original = np.array([[0.0, -20.0]])  # the second is 174 dB below: not audible
    assert reconstruction_error(original, original + np.array([[0.5, 9.0]])) == pytest.approx(4.343, abs=1e-3)
    assert np.isnan(relative_difference(np.ones(3), np.zeros(3)))
