"""What is kept of an inpainted clip is the original waveform, joined without a click."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.signal
import torch

from attnviz.errors import AudioError
from attnviz.models.pipelines import AuffusionInpaintPipeline
from attnviz.models.pipelines.joining import join_kept

SAMPLES = 32_000
TIME = np.arange(SAMPLES) / 16_000
ORIGINAL = (0.5 * np.sin(2 * np.pi * 300 * TIME)).astype(np.float32)
DRAWN = (0.5 * np.sin(2 * np.pi * 410 * TIME + 1)).astype(np.float32)


def masked(start, end, low=0, high=256):
    mask = np.zeros((256, 200), dtype=bool)
    mask[low:high, start:end] = True
    return mask


def kinks(audio):
    """How far each sample is from the line through its neighbours."""
    return np.abs(np.diff(audio.astype(np.float64), 2))


@pytest.mark.parametrize("mask", [masked(50, 120), masked(50, 51), masked(0, 60), masked(140, 200)])
@pytest.mark.parametrize("bands", [(0, 256), (40, 100)])
def test_kept_frames_are_the_original_bit_for_bit(mask, bands):
    mask = mask & masked(0, 200, *bands)
    joined = join_kept(ORIGINAL, DRAWN, mask)
    kept = np.repeat(~mask.any(axis=0), 160)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined[kept], ORIGINAL[kept])
    assert not np.array_equal(joined[~kept], ORIGINAL[~kept])


def test_between_the_seams_it_is_what_was_drawn():
    joined = join_kept(ORIGINAL, DRAWN, masked(50, 120))
    np.testing.assert_array_equal(joined[8000 + 320 : 19_200 - 320], DRAWN[8000 + 320 : 19_200 - 320])


def test_a_full_mask_is_what_was_drawn():
    np.testing.assert_array_equal(join_kept(ORIGINAL, DRAWN, masked(0, 200)), DRAWN)
    np.testing.assert_array_equal(join_kept(ORIGINAL, DRAWN, masked(0, 0)), ORIGINAL)


def test_a_span_at_an_end_is_not_faded_there():
    joined = join_kept(ORIGINAL, DRAWN, masked(0, 60))
    np.testing.assert_array_equal(joined[:9000], DRAWN[:9000])


def test_seams_do_not_click():
    hard = ORIGINAL.copy()
    hard[8000:19_200] = DRAWN[8000:19_200]
    smooth = max(kinks(ORIGINAL).max(), kinks(DRAWN).max())
    assert kinks(hard).max() > 5 * smooth  # what a click is
    assert kinks(join_kept(ORIGINAL, DRAWN, masked(50, 120))).max() < 1.1 * smooth
    boxed = join_kept(ORIGINAL, DRAWN, masked(50, 120, 0, 40))
    assert kinks(boxed).max() < 1.5 * smooth


def test_a_box_changes_its_own_frequencies():
    noise = np.random.default_rng(0).standard_normal((2, SAMPLES)).astype(np.float32) * 0.1
    silence = np.zeros(SAMPLES, dtype=np.float32)
    joined = join_kept(silence, noise[0], masked(40, 160, 128, 256))
    hertz, power = scipy.signal.welch(joined[8000:24_000], 16_000, nperseg=1024)
    _, whole = scipy.signal.welch(noise[0][8000:24_000], 16_000, nperseg=1024)
    edge = librosa.mel_frequencies(3, fmin=0, fmax=8000)[1]  # half of the mel axis
    assert np.median(power[hertz < edge - 300] / whole[hertz < edge - 300]) < 1e-3
    assert 0.9 < np.median(power[hertz > edge + 300] / whole[hertz > edge + 300]) < 1.1


def test_silence_follows_a_shorter_original():
    joined = join_kept(ORIGINAL[:16_000], DRAWN, masked(20, 40))
    np.testing.assert_array_equal(joined[16_000:], 0)


def test_a_mask_that_is_too_short():
    with pytest.raises(AudioError, match="150 frames.*200"):
        join_kept(ORIGINAL, DRAWN, masked(0, 10)[:, :150])


# The pipeline ----------------------------------------------------------------------


def test_the_pipeline_keeps_each_clip_at_its_own_level(pipe):
    inpaint = AuffusionInpaintPipeline.from_pipe(pipe)
    inpaint.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(1)
    clips = [0.2 * ORIGINAL, (0.05 * rng.standard_normal(SAMPLES)).astype(np.float32)]
    call = {"width": 200, "num_inference_steps": 1, "guidance_scale": 1.0}
    audios = inpaint(
        ["rain falls", "a dog barks"], clips, span=(0.5, 1.03), generator=torch.Generator().manual_seed(0), **call
    ).audios
    for clip, audio in zip(clips, audios, strict=True):
        kept = np.ones(SAMPLES, dtype=bool)
        kept[8000:16_480] = False  # 0.5 s is in the cell from 0.48 s, which begins before the span
        np.testing.assert_array_equal(audio[kept], clip[kept])
        assert not np.array_equal(audio[~kept], clip[~kept])
    box = np.zeros((256, 200), dtype=bool)
    box[64:128, 80:160] = True
    several = inpaint(
        "rain falls",
        clips[0],
        mask=box,
        num_images_per_prompt=2,
        generator=torch.Generator().manual_seed(0),
        **call,
    ).audios
    for audio in several:
        np.testing.assert_array_equal(audio[:12_800], clips[0][:12_800])
        np.testing.assert_array_equal(audio[25_600:], clips[0][25_600:])
