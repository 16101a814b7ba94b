"""The critic of patches: what it sees, what it is paid for, and what it changes in a decoder."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from training.test_training_parts import VAE

from attnviz.training.critic import PatchCritic, balanced_weight, hinge_loss
from attnviz.training.vae import VaeObjective, _Criticism, _Reconstruction


def test_a_score_depends_on_a_patch_of_46_pixels():
    critic = PatchCritic().double()
    for layer in critic.layers:
        if isinstance(layer, torch.nn.GroupNorm):  # sees the whole image; out of the way for once
            layer.forward = lambda given: given
    images = torch.rand(1, 3, 128, 96, dtype=torch.float64, requires_grad=True)
    scores = critic(images)
    assert scores.shape == (1, 1, 15, 11)
    scores[0, 0, 7, 5].backward()
    rows, columns = (images.grad[0].abs().sum(0) > 0).nonzero().T
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (46, 46)


def test_the_critic_is_paid_up_to_a_margin():
    sure, unsure = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 0.0])
    assert hinge_loss(sure, -sure) == 0
    assert hinge_loss(unsure, unsure) == 1
    assert hinge_loss(-sure, sure) == 2.5


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_the_weight_makes_both_gradients_equal(scale):
    last = torch.tensor([0.5, -2.0], requires_grad=True)
    error, deceit = (3 * last[0] + 4 * last[1]) * 1.0, scale * last[0]
    assert float(balanced_weight(error, deceit, last)) == pytest.approx(5 / scale, rel=1e-3)


def test_each_player_trains_its_own():
    torch.manual_seed(0)
    vae, critic = AutoencoderKL(**VAE), PatchCritic()
    objective = VaeObjective(columns=64, adversarial_weight=1.0)
    decoding, judging = _Reconstruction(vae, objective, critic), _Criticism(vae, critic)
    assert {id(weight) for weight in decoding.trained()} == {id(weight) for weight in vae.parameters()}
    assert {id(weight) for weight in judging.trained()} == {id(weight) for weight in critic.parameters()}
    batch = {"images": torch.rand(2, 3, 256, 64) * 2 - 1}
    loss, told = judging(batch)
    loss.backward()
    assert all(weight.grad is None for weight in vae.parameters())
    assert told["critic"] == loss
    critic.zero_grad()
    loss, told = decoding(batch)
    assert told["loss"] != loss  # what is logged is the error, without what the critic adds


def test_a_critic_learns_to_tell_smooth_from_rough():
    torch.manual_seed(0)
    critic = PatchCritic()
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    rough = torch.randn(4, 3, 64, 48)
    smooth = torch.nn.functional.avg_pool2d(rough, 5, stride=1, padding=2)
    for _ in range(25):
        optimizer.zero_grad()
        hinge_loss(critic(rough), critic(smooth)).backward()
        optimizer.step()
    assert critic(rough).mean() > 0.5
    assert critic(smooth).mean() < -0.5
