"""The parts of explaining, without a U-Net or with the smallest one: level, noise, draws."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import soundfile
import torch

from attnviz.audio import LOG_FLOOR
from attnviz.capture import AttentionRecorder, Conditioning
from attnviz.diffusion import clip as clips
from attnviz.diffusion.noising import Noising, draw_noise
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.errors import AudioError, CaptureError
from attnviz.testing.checkpoints import SCHEDULER_CONFIG
from attnviz.testing.models import make_unet

LATENTS = torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(1))  # numel is no multiple of 16


def tone(seconds, amplitude=0.1):
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


def read_clip(audio, *, normalize):
    return clips.read_clip(audio, normalize=normalize, overlap=2.56, column=64)


# The clip ---------------------------------------------------------------------------------------------


def test_level_is_normalised_or_left_alone():
    quiet, loud = tone(1, 0.01), tone(1, 0.8)
    np.testing.assert_allclose(
        read_clip(quiet, normalize=True).image, read_clip(loud, normalize=True).image, atol=2e-3
    )
    as_they_are = [read_clip(each, normalize=False).image for each in (quiet, loud)]
    assert as_they_are[1].max() - as_they_are[0].max() > 0.2  # 38 dB, of 146 in the image


@pytest.mark.parametrize(("seconds", "frames"), [(1.004, 100), (10.23, 1023), (10.24, 1024)])
def test_shorter_clips_are_followed_by_silence(seconds, frames):
    clip = read_clip(tone(seconds), normalize=True)
    assert clip.image.shape == (256, 1024)
    assert clip.grid.audio_seconds == pytest.approx(seconds)
    assert not clip.image[:, frames:].any()
    assert clip.image[:, :frames].any(axis=0).all()
    np.testing.assert_allclose(clip.log_mel[:, frames:], LOG_FLOOR, atol=1e-6)
    assert clip.grid.padding(1024).sum() == 1024 - frames
    assert clip.pixels.shape == (1, 3, 256, 1024)
    assert (float(clip.pixels.min()), float(clip.pixels[0, 2].max())) == (-1.0, float(clip.image.max() * 2 - 1))


def test_any_rate_channels_and_format_are_the_same_sound(tmp_path):
    """A low tone at 8 kHz, in two channels, as FLAC; against the array at 16 kHz."""
    low = (0.1 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 8_000)).astype(np.float32)
    soundfile.write(tmp_path / "low.flac", np.stack([low, low], axis=1), 8_000, subtype="PCM_24")
    clip, plain = (read_clip(each, normalize=True) for each in (tmp_path / "low.flac", tone(3)))
    assert clip.grid == plain.grid
    inner = np.s_[:, 10:-734]  # resampling rings at the two ends
    loud = plain.image[inner] > 0.4
    assert loud.mean() > 0.005
    np.testing.assert_allclose(clip.image[inner][loud], plain.image[inner][loud], atol=0.01)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, 2)), "clip.wav has 0 samples"),
        (np.full((16_000, 2), np.nan), "clip.wav has samples that are NaN"),
        (np.zeros((900, 2)), "900 samples.*at least 945"),
    ],
)
def test_files_that_are_no_clip(samples, message, tmp_path):
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=message):
        read_clip(tmp_path / "clip.wav", normalize=True)


def test_a_resampled_file_may_be_a_few_samples_too_long():
    clip = read_clip(tone(10.249), normalize=True)
    assert clip.grid.audio_seconds == 10.24


# The noise --------------------------------------------------------------------------------------------


def test_a_draw_depends_on_seed_timestep_and_number_alone():
    few = draw_noise(LATENTS, 50, draws=2, seed=3)
    many = draw_noise(LATENTS, 50, draws=5, seed=3)
    assert torch.equal(few, many[:2])
    everything = [many, draw_noise(LATENTS, 50, 5, seed=4), draw_noise(LATENTS, 51, 5, seed=3)]
    rows = torch.cat(everything).flatten(1)
    correlation = torch.corrcoef(rows) - torch.eye(15)
    assert float(correlation.abs().max()) < 0.4  # of 140 values: 0.085 is one standard error
    assert float(rows.mean()) == pytest.approx(0, abs=0.1)
    assert float(rows.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "scheduler",
    ["DDPMScheduler", "PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"],
)
def test_noised_as_ddpm_does_it_with_any_scheduler(scheduler):
    """Also after a generation of a few steps, which is all that Euler's own add_noise knows."""
    ours = getattr(diffusers, scheduler).from_config(SCHEDULER_CONFIG)
    ours.set_timesteps(5)
    views = Noising((999, 0, 250), 3, 0).views(LATENTS, TrainingSchedule.of(ours), pytest.fail)
    assert [timestep for _, timestep in views] == [999, 0, 250]
    ddpm = diffusers.DDPMScheduler.from_config(SCHEDULER_CONFIG)
    for samples, timestep in views:
        expected = ddpm.add_noise(LATENTS, draw_noise(LATENTS, timestep, 3, 0), torch.tensor([timestep]))
        torch.testing.assert_close(samples, expected, atol=1e-6, rtol=0)


def test_schedulers_without_a_training_schedule_are_refused():
    with pytest.raises(CaptureError, match="EDMEulerScheduler has no alphas_cumprod"):
        TrainingSchedule.of(diffusers.EDMEulerScheduler())
    flow = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(CaptureError, match="'flow_prediction'; known are epsilon"):
        TrainingSchedule.of(flow)


# The draws, averaged as they come ---------------------------------------------------------------------


@pytest.mark.parametrize("branch", ["conditional", "both"])
def test_draws_are_the_mean_of_as_many_images(branch):
    """Two prompts of two images of three draws: the same rows, once kept apart and once averaged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = make_unet(24)
    embeds = torch.randn(2, 11, 24, generator=torch.Generator().manual_seed(1)).repeat_interleave(6, dim=0)
    negative = torch.zeros_like(embeds)
    samples = torch.randn(24, 4, 9, 29, generator=torch.Generator().manual_seed(2))

    def record(draws):
        conditioning = Conditioning(embeds, negative, 2, range(11), draws=draws)
        with AttentionRecorder(unet, keep=("head",), branch=branch) as recorder, torch.no_grad():
            recording = recorder.begin(conditioning, lambda: 1)
            unet(samples, 300, encoder_hidden_states=torch.cat([negative, embeds]))
        return recorder.captured(recording)

    apart, averaged = record(1), record(3)
    for name, layer in averaged.items():
        images = apart[name].dims.index("image")
        kept = apart[name].attention
        expected = kept.reshape(*kept.shape[:images], 2, 3, *kept.shape[images + 1 :]).mean(axis=images + 1)
        assert layer.dims == apart[name].dims
        np.testing.assert_allclose(layer.attention, expected, atol=1e-6)
