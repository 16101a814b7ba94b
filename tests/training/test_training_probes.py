"""Position and sounds read from a denoiser's features: what the errors are, and what can be learnt of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from training.training_toys import UNET

from attnviz.errors import TrainingError
from attnviz.training.probes import ActivityProbe, PositionProbe
from attnviz.training.unet import UnetObjective

SMALL = {**UNET, "in_channels": 2, "out_channels": 2, "cross_attention_dim": 6}
ROWS, COLUMNS = 4, 12


def make_unet(**changes):
    torch.manual_seed(2)
    return UNet2DConditionModel(**{**SMALL, **changes})


def look(unet, seed=0, keys=None):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(3, 2, ROWS, COLUMNS, generator=generator)
    return unet(latents, 900, torch.ones(3, 5, 6) if keys is None else keys).sample


def learnt(unet):
    """Error of the positions after a few steps of asking for them and for nothing else."""
    probe = PositionProbe(unet)
    optimizer = torch.optim.AdamW([*unet.parameters(), *probe.parameters()], lr=1e-2)
    errors = []
    for step in range(120):
        look(unet, step)
        error = probe.error()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    return float(np.mean(errors[-20:]))


def test_the_error_is_that_of_the_readings_written_out_by_hand():
    unet = make_unet()
    probe = PositionProbe(unet)
    # Two of the last block, as large as the latents, then the middle block's, half as large.
    assert [one.in_channels for one in probe.readings] == [8, 8, 16]
    shapes = [(ROWS, COLUMNS), (ROWS, COLUMNS), (ROWS // 2, COLUMNS // 2)]
    for reading, told in zip(probe.readings, (0.0, 0.5, -1.0), strict=True):
        torch.nn.init.zeros_(reading.weight)
        torch.nn.init.constant_(reading.bias, told)
    look(unet)
    by_hand = [
        (np.mean((told - np.linspace(-1, 1, rows)) ** 2) + np.mean((told - np.linspace(-1, 1, columns)) ** 2)) / 2
        for (rows, columns), told in zip(shapes, (0.0, 0.5, -1.0), strict=True)
    ]
    assert float(probe.error().detach()) == pytest.approx(np.mean(by_hand), rel=1e-5)


@pytest.mark.slow
def test_padding_with_zeros_brings_the_position_and_nothing_else_does():
    assert learnt(make_unet()) < 0.1
    round_about = make_unet()
    for module in round_about.modules():
        if isinstance(module, torch.nn.Conv2d) and module.padding != (0, 0):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [1, 1, 1, 1]
    # One guess for all: the mean square of the grid's own positions, 0.5 or so on a grid as small.
    assert learnt(round_about) > 0.35


def test_a_denoiser_that_attends_to_no_words_there_is_refused():
    blind = make_unet(
        mid_block_type="UNetMidBlock2D",
        up_block_types=["UpBlock2D", "UpBlock2D"],
    )
    with pytest.raises(TrainingError, match=r"objective.position_weight .* this U-Net has none there"):
        PositionProbe(blind)
    with pytest.raises(TrainingError, match=r"objective.activity_weight .* this U-Net has none there"):
        ActivityProbe(blind, 3)


def test_the_error_of_activity_is_that_written_out_by_hand():
    unet = make_unet()
    probe = ActivityProbe(unet, 2)
    for reading in probe.readings:
        torch.nn.init.zeros_(reading.weight)
        reading.bias.data = torch.tensor([0.0, -2.0])
    look(unet)
    activity = torch.zeros(3, 2, 48)
    activity[:, 1, 6:] = 1  # 4 frames a column of the last block, 8 of the middle one
    shares = np.clip((np.arange(12) * 4 + 4 - 6) / 4, 0, 1), np.clip((np.arange(6) * 8 + 8 - 6) / 8, 0, 1)
    chance = 1 / (1 + np.exp(2))
    by_hand = [
        (-np.log(0.5) - np.mean(share * np.log(chance) + (1 - share) * np.log(1 - chance))) / 2
        for share in (shares[0], shares[0], shares[1])
    ]
    assert float(probe.error(activity).detach()) == pytest.approx(np.mean(by_hand), rel=1e-5)


@pytest.mark.slow
def test_what_sounds_when_can_be_learnt_from_the_words_alone():
    """Of noise, two prompts: the sound of the first is to come in the first half, of the second in the second."""
    unet = make_unet()
    position, activity = PositionProbe(unet), ActivityProbe(unet, 1)
    optimizer = torch.optim.AdamW([*unet.parameters(), *position.parameters(), *activity.parameters()], lr=5e-3)
    keys = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    wanted = torch.zeros(3, 1, COLUMNS)
    wanted[0, :, : COLUMNS // 2] = 1
    wanted[1, :, COLUMNS // 2 :] = 1
    errors = []
    for step in range(150):
        look(unet, step, keys)
        error = activity.error(wanted)
        optimizer.zero_grad()
        (error + 0.5 * position.error()).backward()
        optimizer.step()
        errors.append(float(error.detach()))
    # Who knows how often, and neither which prompt nor which half, is at ln 3 - 2/3 ln 2 = 0.64; which prompt
    # alone, at 2/3 ln 2 = 0.46.
    assert np.mean(errors[-20:]) < 0.35


def test_late_timesteps_are_drawn_more_often_as_the_formula_says():
    shares = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24])
    assert UnetObjective().timesteps(shares, 1000).tolist() == [0, 250, 500, 750, 999]
    # u -> 3u / (1 + 2u): 0.25 -> 0.5, 0.5 -> 0.75, 0.75 -> 0.9
    assert UnetObjective(timestep_shift=3).timesteps(shares, 1000).tolist() == [0, 500, 750, 900, 999]
    drawn = UnetObjective(timestep_shift=3).timesteps(torch.rand(4000), 20)
    assert set(drawn.tolist()) == set(range(20))


@pytest.mark.parametrize("shift", [0, -1.0, float("inf"), float("nan")])
def test_shifts_that_are_none_are_refused(shift):
    with pytest.raises(TrainingError, match=r"objective.timestep_shift is .*; it must be above 0"):
        UnetObjective(timestep_shift=shift)


@pytest.mark.parametrize("name", ["mean_weight", "position_weight", "activity_weight"])
@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_weights_that_are_none_are_refused(name, weight):
    with pytest.raises(TrainingError, match=rf"objective.{name} is .*; it must be at least 0"):
        UnetObjective(**{name: weight})
