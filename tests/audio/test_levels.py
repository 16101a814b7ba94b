"""Levels of audio and spectrograms, and warnings of what cannot be heard or is clipped."""

from __future__ import annotations

import numpy as np
import pytest
from diagnosis_planted import changed

from attnviz.audio import log_mel, to_int16
from attnviz.audio.levels import (
    CLIPPED_MS,
    INAUDIBLE_DBFS,
    clipped_milliseconds,
    levels,
    loudest_level,
    mel_levels,
    warn_if_clipped,
    warn_if_inaudible,
)
from attnviz.diagnosis import diagnose
from attnviz.diagnosis.thresholds import SILENT
from attnviz.errors import AudioError, ClippingWarning, InaudibleWarning

RATE = 16_000
NOISE = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)


def tone(hertz, amplitude=0.1, seconds=4):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(seconds * RATE) / RATE)).astype(np.float32)


def test_a_sine_is_3_db_below_its_amplitude_and_gain_adds():
    assert loudest_level(tone(440, 1.0)) == pytest.approx(-3.01, abs=0.01)
    assert loudest_level(0.01 * tone(440, 1.0)) == pytest.approx(-43.01, abs=0.01)
    assert loudest_level(np.zeros(100)) == -120.0


def test_the_level_is_of_the_loudest_part_and_found_where_it_is():
    clip = np.concatenate([np.zeros(3 * RATE), tone(440, seconds=1), np.zeros(2 * RATE)])
    found = levels(clip)
    assert len(found) == 600
    assert found.max() == pytest.approx(-23.01, abs=0.01)
    assert 310 <= found.argmax() <= 390
    assert found[:270].max() == -120.0
    # A literal one: 6400 samples around the centre of frame 350.
    middle = 350 * 160 + 80
    assert found[350] == pytest.approx(10 * np.log10(np.mean(clip[middle - 3200 : middle + 3200] ** 2)))


@pytest.mark.parametrize("seconds", [0.01, 0.2, 0.41])
def test_a_short_clip_has_the_level_of_all_of_it(seconds):
    clip = NOISE[: int(seconds * RATE)]
    if seconds < 0.4:
        assert loudest_level(clip) == pytest.approx(10 * np.log10(np.mean(clip.astype(float) ** 2)))
    assert levels(clip).shape == (round(seconds * 100),)


@pytest.mark.parametrize(
    ("clip", "most"), [(NOISE, 1.0), *((tone(hertz), 4.0) for hertz in (100, 440, 2500, 7000))]
)
@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_a_spectrogram_s_level_is_close_to_its_audio_s_and_not_above(clip, most, gain):
    heard, seen = loudest_level(gain * clip), mel_levels(log_mel(gain * clip)).max()
    assert heard - most <= seen <= heard + 0.1


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 10))])
def test_other_arrays_are_refused(bad):
    with pytest.raises(AudioError, match="shape"):
        levels(bad)


def test_what_is_below_the_limit_is_said_with_its_level():
    warn_if_inaudible(INAUDIBLE_DBFS, "The clip")
    with pytest.warns(InaudibleWarning, match=r"The clip cannot be heard: -79\.6 dBFS"):
        warn_if_inaudible(-79.6, "The clip")


def test_samples_at_full_scale_are_counted_on_both_sides_and_before_and_after_writing():
    clip = np.zeros(RATE)
    clip[100:132], clip[500:516] = 1.0, -1.0
    assert clipped_milliseconds(clip) == 3.0
    assert clipped_milliseconds(2 * clip) == 3.0
    assert clipped_milliseconds(to_int16(clip) / 32768) == 3.0
    assert clipped_milliseconds(0.999 * clip) == 0.0
    assert clipped_milliseconds(np.clip(clip, -1, 32766 / 32768)) == 1.0


def test_what_is_at_full_scale_for_long_is_said_with_its_duration():
    clip = np.zeros(RATE)
    clip[: int(CLIPPED_MS * 16)] = 1.0
    warn_if_clipped(clip, "The clip", "Do this.")
    clip[-1] = -1.0
    with pytest.warns(ClippingWarning, match=r"The clip is clipped: 10\.1 ms \(161 samples\).*\. Do this\."):
        warn_if_clipped(clip, "The clip", "Do this.")


@pytest.mark.parametrize(("level", "found"), [(-79.6, True), (-55.0, True), (-40.0, False)])
def test_diagnose_finds_a_result_at_minus_80_dbfs_though_it_is_above_the_floor(level, found):
    """-79.6 dBFS has cells 56 dB above the floor in the study that missed it."""
    clip = 10 ** (level / 20) * NOISE / NOISE.std()
    nats = float(log_mel(clip)[20:].mean())
    maps = changed(sound=lambda given: np.full_like(given, nats))
    assert (SILENT in diagnose(maps).found) is found
