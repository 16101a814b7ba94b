"""Lags that were planted are found, to a part of a column."""

from __future__ import annotations

import numpy as np
import pytest
from alignment_synthetic import DOG, GRID, RAIN, event_rows, planted_maps

from attnviz.alignment import Alignment, align, layer_lags
from attnviz.alignment.lags import peaks, shifted_shares
from attnviz.errors import MapsError
from attnviz.events import column_activity


def late(lag, *, columns=40, clips=20, noise=0.0, seed=0, blur=0, sign=1.0, layer="down.0.0"):
    """Clips of two sounds, whose maps come `lag` seconds late."""
    rng = np.random.default_rng(seed)
    results = []
    for number in range(clips):
        curves, rows = {}, []
        for label, span in (("dog barks", DOG), ("rain falls", RAIN)):
            onset = rng.uniform(0.1, 0.45)
            offset = onset + rng.uniform(0.08, 0.2)
            share = column_activity([onset + lag], [offset + lag], GRID, columns)
            if blur:
                kernel = np.bartlett(2 * blur + 1)
                share = np.convolve(np.pad(share, blur, mode="edge"), kernel / kernel.sum(), mode="valid")
            curves[span] = 1.0 + sign * 0.3 * share + noise * rng.normal(size=columns)
            rows.append((label, onset, offset))
        events = event_rows(*rows, clip=f"{number}", source=[f"a{number % 12}", f"b{number % 12}"])
        results.append(align(planted_maps(curves), events, readout=layer))
    return Alignment.concat(results)


def measured(result, **choices):
    return layer_lags([result], **{"max_lag": 0.1, "n_resamples": 200, **choices}).iloc[0]


@pytest.mark.parametrize(("columns", "width"), [(40, 20.0), (20, 40.0), (10, 80.0)])
@pytest.mark.parametrize("part", [0.0, 0.3, -0.45])
def test_parts_of_a_column_are_told_apart(columns, width, part):
    row = measured(late(1e-3 * part * width, columns=columns))
    assert row["column_ms"] == pytest.approx(width)
    assert row["lag_ms"] == pytest.approx(part * width, abs=0.03 * width)
    assert row["correlation"] == pytest.approx(1.0, abs=0.01)
    assert row["phrases"] == 40
    assert row["sources"] == 24
    assert row["peaked"] == 1.0


def test_with_noise_the_interval_holds_the_lag_and_0_is_told_from_it():
    row = measured(late(0.012, noise=0.15, clips=40))
    assert 0 < row["low"] < 12 < row["high"]
    assert row["high"] - row["low"] < 10  # half a column
    assert row["correlation"] > row["correlation_at_0"]


@pytest.mark.slow
def test_intervals_hold_the_lag_about_as_often_as_they_should():
    held = [
        row["low"] <= 7 <= row["high"]
        for row in (measured(late(0.007, noise=0.15, seed=seed), n_resamples=100) for seed in range(8))
    ]
    assert sum(held) >= 6  # 95 %, a little too narrow of 24 sources


def test_a_blur_to_both_sides_is_no_lag():
    assert measured(late(0.0, blur=3))["lag_ms"] == pytest.approx(0.0, abs=1.0)


def test_layers_stand_one_below_the_other_with_their_own_lags():
    table = layer_lags([late(0.0), late(0.03)], max_lag=0.1, n_resamples=50)
    assert table["readout"].tolist() == ["down.0.0", "down.0.0"]
    np.testing.assert_allclose(table["lag_ms"], [0.0, 30.0], atol=0.6)


def test_early_is_below_0_and_late_above_as_for_the_onset_error():
    for lag in (-0.04, 0.04):
        result = late(lag)
        error = result.table.query("method == 'map'")["onset_error"].mean()
        assert np.sign(measured(result)["lag_ms"]) == np.sign(error) == np.sign(lag)


def test_what_has_no_peak_has_no_lag():
    beyond = measured(late(0.09), max_lag=0.04)
    assert np.isnan(beyond["lag_ms"])
    assert beyond["peaked"] < 1.0
    inverted = measured(late(0.0, sign=-1.0), max_lag=0.03)
    assert np.isnan(inverted["lag_ms"])
    flat = Alignment.concat(
        align(
            planted_maps({DOG: np.ones(40), RAIN: np.ones(40)}), event_rows(("dog barks", 0.1, 0.2), clip=str(n))
        )
        for n in range(3)
    )
    row = measured(flat)
    assert np.isnan(row["lag_ms"])
    assert row["peaked"] == 0.0


def test_nothing_to_measure_is_said_and_no_error():
    silent = align(planted_maps({DOG: np.ones(40), RAIN: np.ones(40)}), event_rows(("dog barks", np.nan, np.nan)))
    row = measured(silent)
    assert row["phrases"] == 0
    assert np.isnan(row["lag_ms"])
    assert layer_lags([]).empty


def test_shares_are_those_of_the_moved_events():
    times = np.array([[0.013, 0.09], [0.3, 0.47]])
    shifts = np.array([-0.11, -0.02, 0.0, 0.005, 0.4])
    for row, shift in zip(shifted_shares(times, shifts, 40, 0.02), shifts, strict=True):
        moved = np.maximum(times + shift, 0.0)
        np.testing.assert_allclose(row, column_activity(moved[:, 0], moved[:, 1], GRID, 40), atol=1e-9)


def test_the_peak_of_a_parabola_is_exact():
    shifts = np.linspace(-1.0, 1.0, 21)
    rows = np.stack([2 - (shifts - 0.237) ** 2, np.where(shifts > 0.5, np.nan, -((shifts + 0.5) ** 2) + 1)])
    at, height = peaks(rows, shifts)
    np.testing.assert_allclose(at, [0.237, -0.5])
    np.testing.assert_allclose(height, [2.0, 1.0])


@pytest.mark.parametrize("choice", [{"max_lag": 0}, {"max_lag": "1"}, {"n_resamples": 0}, {"n_resamples": True}])
def test_settings_that_cannot_be(choice):
    with pytest.raises(MapsError):
        layer_lags([], **choice)


def test_columns_of_two_widths_are_refused():
    one, two = late(0.0, clips=2), late(0.0, clips=2, columns=20)
    with pytest.raises(MapsError, match="columns of 20, 40 ms"):
        layer_lags([Alignment.concat([one, two])])
