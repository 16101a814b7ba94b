"""Measures of edits, on signals whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from attnviz.audio import SpectrogramGrid
from attnviz.editing.measures import (
    agreement,
    heard_loudness,
    loudness,
    mel_distance,
    monotone,
    outside_events,
    outside_map,
    seam_click,
)
from attnviz.errors import AudioError


def events(*rows):
    return pd.DataFrame(
        [{"clip": "c", "label": label, "onset": onset, "offset": offset} for label, onset, offset in rows],
        columns=["clip", "label", "onset", "offset"],
    )


def test_frames_outside_the_edited_sounds():
    grid = SpectrogramGrid(width=1000, audio_seconds=9.0)
    found = outside_events(
        [events(("Rain", 1.0, 2.0), ("Rooster", 0.0, 9.0)), events(("Dog bark", 4.0, 5.0))],
        ("Rain", "Dog bark"),
        grid,
        1000,
    )
    wanted = np.ones(1000, dtype=bool)
    wanted[100:200] = wanted[400:500] = wanted[900:] = False
    np.testing.assert_array_equal(found, wanted)


def test_distance_counts_what_it_is_to_count():
    before, after = np.zeros((4, 6)), np.zeros((4, 6))
    after[:, 2] = 3.0
    after[1, 5] = -2.0
    assert mel_distance(before, after) == pytest.approx((4 * 3 + 2) / 24)
    assert mel_distance(before, after, np.arange(6) != 2) == pytest.approx(2 / 20)
    cells = np.zeros((4, 6), dtype=bool)
    cells[1, 2:] = True
    assert mel_distance(before, after, cells) == pytest.approx(5 / 4)
    assert np.isnan(mel_distance(before, after, np.zeros(6, dtype=bool)))
    with pytest.raises(AudioError, match="shapes"):
        mel_distance(before, after[:, 1:])


def test_outside_a_map():
    heat = xr.DataArray([[0.0, 1.0, 0.31], [0.3, 0.29, 0.1]], dims=("freq", "time"))
    np.testing.assert_array_equal(outside_map(heat), [[True, False, False], [True, True, True]])


def test_twice_the_magnitude_is_6_db():
    log_mel = np.log(np.full((3, 4), 0.1))
    weights = np.zeros((3, 4))
    weights[1, 2] = 0.4
    louder = log_mel.copy()
    louder[1, 2] += np.log(2)
    louder[0, 0] += 9  # not counted
    assert loudness(log_mel, weights) == pytest.approx(-20)
    assert loudness(louder, weights) - loudness(log_mel, weights) == pytest.approx(20 * np.log10(2))
    assert np.isnan(loudness(log_mel, np.zeros((3, 4))))


def test_what_is_heard_is_as_loud_as_its_own_frames():
    log_mel = np.log(np.full((3, 8), 0.1))
    log_mel[:, 4:] = np.log(0.4)  # another sound, louder
    mine = np.array([1.0, 0.0])  # two frames of a listener for eight of the spectrogram
    assert heard_loudness(log_mel, mine) == pytest.approx(10 * np.log10(0.01 / 2))
    assert heard_loudness(log_mel, mine / 4) == pytest.approx(heard_loudness(log_mel, mine) - 10 * np.log10(4))
    # The other one grows tenfold: what is heard of mine stays.
    grown = log_mel.copy()
    grown[:, 4:] += np.log(10)
    assert heard_loudness(grown, mine) == pytest.approx(heard_loudness(log_mel, mine))
    assert heard_loudness(grown, mine[::-1]) == pytest.approx(10 * np.log10(16 / 2))
    assert heard_loudness(grown, 0 * mine) == -np.inf


def test_agreement_on_the_sounds_that_were_not_edited():
    before = xr.DataArray(np.array([[0.1, 0.9], [1.0, 1.0]]), {"sound": ["Rain", "Rooster"]}, ("sound", "time"))
    after = before.copy(data=[[0.1, 0.9], [0.0, 0.0]])
    assert agreement(before, after, {"Rain"}) == 1
    assert agreement(before, after, {"Rooster"}) == 0
    assert agreement(before, after, {"Rain", "Rooster"}) == 0.5
    assert np.isnan(agreement(before, after, set()))


def test_monotone_up_down_and_flat():
    weights = [-2, -1, 0, 1, 2, 4]
    assert monotone(weights, np.exp(weights).tolist()) == pytest.approx(1)
    assert monotone(weights, [-w for w in weights]) == pytest.approx(-1)
    assert np.isnan(monotone(weights, [3.0] * 6))


def test_a_jump_is_a_click_and_a_cross_fade_is_none():
    time = np.arange(32_000) / 16_000
    low, high = 0.3 * np.sin(2 * np.pi * 200 * time), 0.3 * np.sin(2 * np.pi * 310 * time + 2)
    jump = np.where(time < 1, low, high)
    fade = np.clip((time - 0.99) / 0.02, 0, 1)
    faded = low * (1 - fade) + high * fade
    assert seam_click(jump, 1.0) > 15
    assert seam_click(faded, 1.0) < 3
    assert seam_click(low, 1.0) < 0.5
    noise = np.random.default_rng(0).standard_normal(32_000) * 0.1
    assert seam_click(noise, 1.0) < 1
    with pytest.raises(AudioError, match="not inside"):
        seam_click(low, 2.0)
