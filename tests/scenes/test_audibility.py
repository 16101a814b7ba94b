from __future__ import annotations

import librosa
import numpy as np
import pytest
from scenes.synthetic_scenes import BURSTS, bursts

from attnviz.audio import MEL
from attnviz.errors import AudioError
from attnviz.scenes import audible_frames, frame_intervals
from attnviz.scenes.audibility import frame_levels


def tone(frequency, seconds, level=0.0, rate=16_000):
    time = np.arange(round(seconds * rate)) / rate
    return 10 ** (level / 20) * np.sin(2 * np.pi * frequency * time)


def intervals(audio, **settings):
    return frame_intervals(audible_frames(audio, **settings))


def test_planted_silences_are_not_audible():
    found = np.array(intervals(bursts(1000, 16_000)))
    np.testing.assert_allclose(found[:, 0], np.array(BURSTS)[:, 0], atol=1e-9)
    late = found[:, 1] - np.array(BURSTS)[:, 1]
    assert ((late > -1e-9) & (late < 0.0101)).all()  # the weighting rings for at most a frame


@pytest.mark.parametrize("gain", [0.02, 0.3, 1.0, 3.0])
def test_gain_changes_nothing(gain):
    audio = np.random.default_rng(0).standard_normal(40_000) * np.linspace(0, 0.1, 40_000)
    np.testing.assert_array_equal(*(audible_frames(x, floor_db=-120) for x in (audio, gain * audio)))


def test_a_later_start_is_a_later_event():
    audio = bursts(1000, 16_000)
    later = np.concatenate([np.zeros(37 * 160), audio])
    np.testing.assert_allclose(intervals(later), np.array(intervals(audio)) + 0.37, atol=1e-9)


@pytest.mark.parametrize(("below", "heard"), [(29.0, True), (31.0, False)])
def test_the_range_is_30_db(below, heard):
    audio = np.concatenate([tone(1000, 0.5, -20), np.zeros(8000), tone(1000, 0.5, -20 - below)])
    assert len(intervals(audio)) == (2 if heard else 1)
    assert len(intervals(audio, range_db=below + 1.5)) == 2


def test_the_floor_is_absolute():
    assert intervals(tone(1000, 1, -66)) == ((0.0, 1.0),)  # a sine is 3 dB below its amplitude
    assert intervals(tone(1000, 1, -68)) == ()
    assert intervals(tone(1000, 1, -68), floor_db=-75) == ((0.0, 1.0),)
    assert intervals(np.zeros(16_000)) == ()


@pytest.mark.parametrize(("frames", "events"), [(13, 1), (14, 1), (16, 2), (17, 2)])
def test_gaps_of_less_than_150_ms_are_filled(frames, events):
    audio = np.concatenate([tone(1000, 0.3), np.zeros(frames * 160), tone(1000, 0.3)])
    assert len(intervals(audio)) == events
    assert len(intervals(audio, min_gap=0)) == 2


def test_silence_before_and_after_is_no_gap():
    audio = np.concatenate([np.zeros(800), tone(1000, 0.3), np.zeros(800)])
    assert intervals(audio) == ((0.05, 0.36),)  # 0.35 and one frame of ringing


def test_rumble_does_not_hide_the_silence_between_ticks():
    ticks = bursts(2000, 16_000)
    rumble = 0.1 * np.sin(2 * np.pi * 40 * np.arange(ticks.size) / 16_000)  # 10 dB below the ticks
    np.testing.assert_allclose(intervals(ticks + rumble), BURSTS, atol=0.0101)


@pytest.mark.parametrize("rate", [16_000, 20_000])
@pytest.mark.parametrize("frequency", [50, 100, 200, 500, 1000, 2000])
def test_levels_vs_librosa_a_weighting(frequency, rate):
    level = frame_levels(tone(frequency, 2.0, 0.0, rate), rate)[50:].mean()
    expected = librosa.A_weighting(np.array([frequency]))[0] - 10 * np.log10(2)
    assert level == pytest.approx(expected, abs=0.3)
    assert frame_levels(tone(frequency, 2.0, 0.0, rate), rate, weighted=False).mean() == pytest.approx(
        -3.01, abs=0.1
    )


def test_frames_are_columns_of_the_spectrogram():
    assert audible_frames(np.ones(163_840)).shape == (MEL.frames(163_840),)
    assert audible_frames(np.ones(479)).shape == (2,)
    with pytest.raises(AudioError, match="at least 10 ms"):
        audible_frames(np.ones(100))
