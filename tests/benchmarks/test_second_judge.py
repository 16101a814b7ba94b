"""benchmarks/second_judge.py: what it hears, and what it does not care about."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scenes.synthetic_scenes import PITCHES, bursts, library, recording_of

from attnviz.scenes import CLASSES

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import second_judge
from second_judge import HOP, RATE, SecondJudge, features, judged_rows, one_sound_scenes, separated

SECONDS = 10.24


def pulses(rate_hz: float, seconds: float = 3.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * 700 * time)
    return (0.5 * tone * np.exp(-20 * np.mod(time, 1 / rate_hz))).astype(np.float32)


def hiss(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(3).standard_normal(round(seconds * RATE))).astype(np.float32)


def placed(sound: np.ndarray, frame: int, gain_db: float = 0.0, background_db: float = -75.0) -> np.ndarray:
    """A clip of the length of a generation: a sound from a frame on, over a background; then the gain."""
    noise = np.random.default_rng(0).standard_normal(round(SECONDS * RATE))
    clip = 10 ** (background_db / 20) * noise
    clip[frame * HOP : frame * HOP + sound.size] += sound
    return (10 ** (gain_db / 20) * clip).astype(np.float32)


@pytest.fixture(scope="module")
def judge() -> SecondJudge:
    return SecondJudge([recording for recording in library(1) if recording.class_id % 3 == 1], scenes=1)


@pytest.mark.parametrize("pitch", PITCHES[::3])
def test_time_loudness_and_background_leave_the_name(judge, pitch):
    sound = bursts(pitch, RATE)
    named = judge.name(placed(sound, 10))
    assert named == CLASSES[PITCHES.index(pitch)]
    for changed in (
        placed(sound, 300),
        placed(sound, 10, gain_db=-20.0),
        placed(sound, 10, gain_db=20.0),
        placed(sound, 10, background_db=-50.0),
    ):
        assert judge.name(changed) == named


@pytest.mark.parametrize("sound", [pulses(6.0), hiss(2.0)])
def test_features_are_of_the_sound_alone(sound):
    here = features(placed(sound, 10, background_db=-200.0))
    for changed in (
        placed(sound, 333, background_db=-200.0),
        placed(sound, 10, gain_db=-20.0, background_db=-200.0),
    ):
        np.testing.assert_allclose(features(changed), here, rtol=1e-2, atol=1e-2)  # float32 spectra
    assert np.isfinite(here).all()


def test_the_background_is_taken_out_and_the_sound_stays():
    sound = hiss(2.0)
    clip = placed(sound, 100, background_db=-40.0)
    found = separated(clip)
    decibels, active = found.decibels, found.active
    wanted = np.arange(active.size) * HOP
    wanted = (wanted >= 100 * HOP) & (wanted < 100 * HOP + sound.size)
    assert (active == wanted).mean() > 0.98
    clean = separated(placed(sound, 100, background_db=-200.0)).decibels
    np.testing.assert_allclose(decibels[:, wanted].mean(axis=1), clean[:, wanted].mean(axis=1), atol=1.0)


def test_a_sound_that_fills_the_clip_is_not_its_own_background():
    found = separated(hiss(5.0))
    assert found.active.all()
    assert np.median(found.decibels) > -15 + found.decibels.max()


@pytest.mark.parametrize("audio", [np.zeros(RATE), np.ones(1), np.eye(1, RATE)[0], np.ones(5 * HOP - 1)])
def test_silence_clicks_and_any_length_have_finite_features(audio):
    assert np.isfinite(features(audio.astype(np.float32))).all()


def test_scenes_have_the_form_of_generations_and_differ():
    first, second = one_sound_scenes(library(1)[0], 2, seed=1)
    assert first.shape == second.shape == (round(SECONDS * RATE),)
    assert np.abs(first - second).max() > 0.01


def test_the_seen_fold_and_the_judged_fold_are_not_trained_on(monkeypatch):
    recordings = [
        recording_of(recording.audio, recording.class_id, recording.freesound_id + fold, fold=fold)
        for recording in library(1)[:2]
        for fold in (1, 2, 4)
    ]
    trained = []

    class Spy:
        def __init__(self, recordings):
            trained.append({recording.fold for recording in recordings})

        def name(self, audio):
            return CLASSES[0]

    monkeypatch.setattr(second_judge, "SecondJudge", Spy)
    forms = {"two": lambda recording: [recording.audio, recording.audio]}
    judged = [row for fold in (1, 2, 4) for row in judged_rows(recordings, forms, fold)]
    assert trained == [{2}, {1}, {1, 2}]
    assert len(judged) == 12
    assert np.mean([row["class"] == row["heard"] for row in judged]) == 0.5
