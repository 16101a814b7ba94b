"""Audio from a spectrogram without a vocoder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from attnviz.audio import LOG_FLOOR, MelConfig, griffin_lim, load_audio, log_mel, peak_normalize
from attnviz.errors import AudioError


def sound(samples: int) -> np.ndarray:
    """A falling tone over noise that swells."""
    t = np.arange(samples) / 16_000
    hiss = np.random.default_rng(0).normal(size=samples) * 0.1 * np.linspace(0.1, 1, samples)
    return (0.5 * np.sin(2 * np.pi * (900 * t - 300 * t**2)) + hiss).clip(-1, 1).astype(np.float32)


def test_analysed_again_it_is_the_same_spectrogram() -> None:
    mel = log_mel(sound(9_600))
    audio = griffin_lim(mel)
    assert audio.dtype == np.float32
    assert audio.shape == (60 * 160,)
    assert np.abs(audio).max() <= 1
    assert np.abs(log_mel(audio) - mel).mean() < 0.2


def test_a_click_comes_back_at_its_time() -> None:
    click = np.zeros(9_600, np.float32)
    click[5_000:5_020] = np.random.default_rng(0).uniform(-1, 1, 20)
    energy = griffin_lim(log_mel(click)) ** 2
    centre = (energy * np.arange(9_600)).sum() / energy.sum()
    assert centre == pytest.approx(5_010, abs=80)


def test_real_audio(data_dir: Path) -> None:
    mel = log_mel(peak_normalize(load_audio(data_dir / "audiocaps" / "14ekd4nkpwc_28.wav")[:24_000]))
    assert np.abs(log_mel(griffin_lim(mel)) - mel).mean() < 0.2


def test_what_is_too_loud_is_clipped() -> None:
    audio = griffin_lim(log_mel(sound(3_200)) + 3, iterations=2)
    assert np.abs(audio).max() == 1.0


def test_the_seed_decides() -> None:
    mel = log_mel(sound(3_200))
    first = griffin_lim(mel, iterations=4, seed=1)
    np.testing.assert_array_equal(first, griffin_lim(mel, iterations=4, seed=1))
    assert (first != griffin_lim(mel, iterations=4, seed=2)).any()


def test_more_rounds_come_closer() -> None:
    mel = log_mel(sound(6_400))
    far, near = (np.abs(log_mel(griffin_lim(mel, iterations=n)) - mel).mean() for n in (1, 32))
    assert near < far


def test_silence_is_silent_and_one_frame_is_enough() -> None:
    audio = griffin_lim(np.full((256, 1), LOG_FLOOR, np.float32), iterations=2)
    assert audio.shape == (160,)
    assert np.abs(audio).max() < 1e-4


def test_other_settings_are_used() -> None:
    mel = MelConfig(sampling_rate=8_000, n_fft=512, win_length=400, hop_length=100, n_mels=64, fmax=4_000)
    spectrogram = log_mel(sound(4_000), mel)
    audio = griffin_lim(spectrogram, mel)
    assert audio.shape == (4_000,)
    assert np.abs(log_mel(audio, mel) - spectrogram).mean() < 0.3


@pytest.mark.parametrize(
    ("mel", "reason"),
    [
        (np.zeros((80, 5), np.float32), r"\(80, 5\); expected \(256, frames\)"),
        (np.zeros((256, 0), np.float32), "shape"),
        (np.zeros((1, 256, 5), np.float32), "shape"),
        (np.full((256, 2), math.nan, np.float32), "NaN"),
        (np.zeros((256, 2), np.int64), "floating"),
        (np.full((256, 2), 60.0, np.float32), "decibels"),
    ],
)
def test_what_is_no_spectrogram_is_refused(mel: np.ndarray, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        griffin_lim(mel)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"iterations": 1.5}, {"seed": -1}, {"seed": "x"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(AudioError, match=next(iter(wrong))):
        griffin_lim(np.zeros((256, 2), np.float32), **wrong)
