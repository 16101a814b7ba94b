"""The correction of a waveform's mel spectrogram, against what it must keep and what it must reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnviz.audio import MelConfig
from attnviz.audio.mel import log_mels
from attnviz.errors import AudioError, CheckpointError
from attnviz.models.vocoder import HifiGan, HifiGanConfig
from attnviz.models.vocoder.mel_correction import correct_mel

MEL = MelConfig(sampling_rate=8000, n_fft=512, win_length=256, hop_length=40, n_mels=40, fmin=0, fmax=4000)
SAMPLES = 6000
VOCODER = {
    "resblock": "2",
    "upsample_rates": [5, 8],
    "upsample_kernel_sizes": [9, 16],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "num_mels": MEL.n_mels,
    "n_fft": MEL.n_fft,
    "hop_size": MEL.hop_length,
    "win_size": MEL.win_length,
    "sampling_rate": MEL.sampling_rate,
    "fmin": 0,
    "fmax": 4000,
}


def sweep(batch: int = 1) -> torch.Tensor:
    """Rising tones, a burst of noise in each: every band sounds at some time."""
    times = torch.arange(SAMPLES) / MEL.sampling_rate
    rates = torch.linspace(1500, 2500, batch)[:, None]
    noise = torch.randn(batch, SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.05
    return 0.4 * torch.sin(2 * np.pi * (100 * times + rates * times**2)) + noise


def distance(waves: torch.Tensor, log_mel: torch.Tensor) -> float:
    return float((log_mels(waves, MEL) - log_mel).abs().mean())


def test_a_waveform_that_has_its_mel_stays_as_it_is():
    waves = sweep(2)
    again = correct_mel(waves, log_mels(waves, MEL), MEL, rounds=3)
    # The outermost samples are under the windows' edges, where dividing by their squares costs digits.
    torch.testing.assert_close(again, waves, atol=2e-4, rtol=0)


def test_a_waveform_at_another_level_is_brought_to_the_right_one():
    waves = sweep()
    wanted = log_mels(waves, MEL)
    error = correct_mel(waves * 0.3, wanted, MEL, rounds=1) - waves
    # Not exactly: what is added below the root of every magnitude does not scale along.
    assert float(error.norm() / waves.norm()) < 0.01


def test_each_round_comes_nearer_also_with_wrong_phases():
    wanted = log_mels(sweep(), MEL)
    noise = torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(1)) * 0.1
    distances = [distance(correct_mel(noise, wanted, MEL, rounds=rounds), wanted) for rounds in (0, 1, 2, 4, 8)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.25 * distances[0]


def test_items_of_a_batch_do_not_touch():
    waves = sweep(3)
    wanted = log_mels(waves.flip(0), MEL)
    together = correct_mel(waves, wanted, MEL, rounds=2)
    for i in range(3):
        alone = correct_mel(waves[i : i + 1], wanted[i : i + 1], MEL, rounds=2)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocoder_corrects_when_it_evaluates_and_not_when_it_is_trained(dtype, tmp_path):
    torch.manual_seed(0)
    vocoder = HifiGan(HifiGanConfig.from_dict({**VOCODER, "mel_corrections": 2})).to(dtype)
    log_mel = log_mels(sweep(), MEL)
    plain = vocoder.train()(log_mel)
    corrected = vocoder.eval()(log_mel)
    torch.testing.assert_close(corrected, correct_mel(plain, log_mel, MEL, rounds=2))
    assert corrected.shape == (1, SAMPLES) and corrected.dtype == torch.float32
    assert distance(corrected.detach(), log_mel) < 0.5 * distance(plain.detach(), log_mel)
    vocoder.float().save_pretrained(tmp_path)
    assert HifiGan.from_pretrained(tmp_path).config.mel_corrections == 2


def test_what_is_too_short_to_be_analysed_again_is_refused():
    vocoder = HifiGan(HifiGanConfig.from_dict({**VOCODER, "mel_corrections": 1})).eval()
    with pytest.raises(AudioError, match="samples to compute a spectrogram"):
        vocoder(torch.zeros(1, MEL.n_mels, 3))


@pytest.mark.parametrize("rounds", [-1, 1.5, True, "2"])
def test_rounds_are_counted(rounds):
    with pytest.raises(CheckpointError, match="mel_corrections"):
        HifiGanConfig.from_dict({**VOCODER, "mel_corrections": rounds})
