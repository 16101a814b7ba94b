"""benchmarks/second_judge.py: what it hears, and what it does not care about."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sounds.sounds_synthetic import write_layout

from attnviz.sounds import CLASSES, read_esc10

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from second_judge import RATE, cross_validated, features


def pulses(rate_hz: float, seconds: float = 3.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * 700 * time)
    return (tone * np.exp(-20 * np.mod(time, 1 / rate_hz))).astype(np.float32)


def test_a_clip_s_loudness_does_not_matter_and_its_rhythm_does():
    loud, slow = features(pulses(6.0)), features(pulses(1.5))
    np.testing.assert_allclose(features(0.01 * pulses(6.0)), loud, rtol=1e-2, atol=1e-2)  # float32 spectra
    assert np.isfinite(loud).all()
    # The last five are shares of the changes of loudness, by rate: 0.5 to 1, 1 to 2, 2 to 4, 4 to 8, 8 to 15 Hz.
    assert loud[-5:].argmax() == 3
    assert slow[-5:].argmax() == 1


def test_silence_after_a_sound_does_not_matter():
    sound = pulses(4.0)
    longer = np.concatenate([sound, np.zeros(5 * RATE, np.float32)])
    np.testing.assert_allclose(features(longer)[:19], features(sound)[:19], atol=2.0)  # MFCCs, in dB


def test_each_fold_is_judged_by_the_others(tmp_path):
    """Synthetic classes differ in pitch: what is learnt in one fold holds in the other."""
    esc10 = write_layout(tmp_path, (1, 2, 3), folds=(1, 2), per_fold=2)
    recordings = read_esc10(esc10, classes=CLASSES[:3])
    judged = cross_validated(recordings)
    assert len(judged) == len(recordings) == 12
    assert sorted(judged["fold"].unique()) == [1, 2]
    assert (judged["class"] == judged["heard"]).mean() > 0.5
