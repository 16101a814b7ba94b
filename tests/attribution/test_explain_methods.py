"""Noising, inversion and the predicted clean latents: on known predictions, exactly what the formulas say."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnviz.attribution.settings import settled_latents
from attnviz.diffusion.noising import Inversion, Noising, Predicted, draw_noise, fewest_steps
from attnviz.diffusion.schedule import PREDICTIONS, TrainingSchedule
from attnviz.errors import CaptureError
from attnviz.testing.checkpoints import SCHEDULER_CONFIG
from attnviz.testing.models import make_unet

LATENTS = 2 * torch.randn(1, 4, 5, 7, generator=torch.Generator().manual_seed(1))  # far beyond a clipping at 1
# The schedule written out: betas are the squares of equally spaced roots.
KEPT = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def schedule(prediction="epsilon", *, to_one=True):
    changed = {"prediction_type": prediction, "set_alpha_to_one": to_one}
    return TrainingSchedule.of(diffusers.DDIMScheduler.from_config(SCHEDULER_CONFIG, clip_sample=True, **changed))


def predicted_as(prediction, clean, noise, kept):
    """What a U-Net that knows clean latents and noise predicts."""
    velocity = kept**0.5 * noise - (1 - kept) ** 0.5 * clean
    return {"epsilon": noise, "sample": clean, "v_prediction": velocity}[prediction]


def clean_and_noise(prediction, output, samples, kept):
    """Solve a prediction for the clean latents and the noise."""
    a, b = kept**0.5, (1 - kept) ** 0.5
    if prediction == "epsilon":
        return (samples - b * output) / a, output
    if prediction == "sample":
        return output, (samples - a * output) / b
    return a * samples - b * output, a * output + b * samples


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_inversion_is_on_the_models_own_schedule(scheduler):
    ours = getattr(diffusers, scheduler).from_config(SCHEDULER_CONFIG)
    ours.set_timesteps(7)
    before = {name: str(value) for name, value in vars(ours).items()}
    inverse = TrainingSchedule.of(ours).inverse(20)
    assert torch.equal(inverse.alphas_cumprod, ours.alphas_cumprod)
    np.testing.assert_allclose(inverse.alphas_cumprod, KEPT, rtol=1e-4)
    assert inverse.timesteps.tolist() == list(range(0, 1000, 50))
    assert {name: str(value) for name, value in vars(ours).items()} == before


# Predicted clean --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_model_that_knows_the_noise_gives_the_clip_back(prediction):
    called = []

    def predict(samples, timestep):
        called.append(timestep)
        noise = draw_noise(LATENTS, timestep, 3, 5)
        return predicted_as(prediction, LATENTS.expand(3, -1, -1, -1), noise, KEPT[timestep])

    views = Predicted((400, 0, 900), 3, 5, look_timestep=7).views(LATENTS, schedule(prediction), predict)
    assert called == [400, 0, 900]
    assert [timestep for _, timestep in views] == [7, 7, 7]
    for samples, _ in views:
        assert samples.dtype == torch.float32
        torch.testing.assert_close(samples, LATENTS.expand(3, -1, -1, -1), atol=2e-4, rtol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_clean_latents_of_any_prediction(prediction):
    """A prediction that is no truth: half the noisy latents."""
    views = Predicted((50, 400), 2, 5, look_timestep=0).views(
        LATENTS, schedule(prediction), lambda samples, timestep: samples / 2
    )
    noised = Noising((50, 400), 2, 5).views(LATENTS, schedule(prediction), pytest.fail)
    for (looked, _), (samples, timestep) in zip(views, noised, strict=True):
        expected, _ = clean_and_noise(prediction, samples.numpy() / 2, samples.numpy(), KEPT[timestep])
        np.testing.assert_allclose(looked, expected, atol=1e-5)


# Inversion --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_inversion_vs_the_recursion_written_out(prediction, to_one):
    """A prediction that is linear in the latents, and another at every timestep."""

    def output(samples, timestep):
        return (0.3 + timestep / 2000) * samples

    called = []

    def predict(samples, timestep):
        called.append(timestep)
        return output(samples, timestep)

    inversion = Inversion((200, 0, 150), steps=20)
    views = inversion.views(LATENTS, schedule(prediction, to_one=to_one), predict)
    # With no noise at all, predicted clean latents tell nothing of the noise: begin with a little of it.
    samples, kept, literal = LATENTS.double().numpy(), 1.0 if to_one and prediction != "sample" else KEPT[0], {}
    for timestep in (0, 50, 100, 150, 200):
        clean, noise = clean_and_noise(prediction, output(samples, timestep), samples, kept)
        kept = KEPT[timestep]
        literal[timestep] = samples = kept**0.5 * clean + (1 - kept) ** 0.5 * noise
    assert called == [0, 50, 100, 150, 200]
    assert inversion.predictions(schedule()) == len(called)
    assert [timestep for _, timestep in views] == [200, 0, 150]
    for looked, timestep in views:
        np.testing.assert_allclose(looked, literal[timestep], atol=2e-5, rtol=5e-5, err_msg=str(timestep))


def test_a_model_that_knows_the_noise_inverts_to_it():
    noise = draw_noise(LATENTS, 50, 1, 0)
    for looked, timestep in Inversion((50, 950), 20).views(LATENTS, schedule(), lambda samples, timestep: noise):
        expected = KEPT[timestep] ** 0.5 * LATENTS + (1 - KEPT[timestep]) ** 0.5 * noise
        torch.testing.assert_close(looked, expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_sampling_from_the_inversion_returns_to_the_clip(prediction):
    """With diffusers' own sampler in the same steps; the finer the steps, the closer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = make_unet(24)
    latents = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(2))
    keys = torch.randn(1, 11, 24, generator=torch.Generator().manual_seed(3))

    def predict(samples, timestep):
        return unet(samples, timestep, encoder_hidden_states=keys, return_dict=False)[0]

    def missed_by(steps):
        [(samples, highest)] = Inversion((400,), steps).views(latents, schedule(prediction), predict)
        assert float((samples - latents).std()) > 0.1
        config = {**SCHEDULER_CONFIG, "prediction_type": prediction, "steps_offset": 0, "set_alpha_to_one": True}
        sampler = diffusers.DDIMScheduler.from_config(config, clip_sample=False)
        sampler.set_timesteps(steps)
        for timestep in sampler.timesteps[sampler.timesteps <= highest]:
            samples = sampler.step(predict(samples, timestep), timestep, samples).prev_sample
        return float((samples - latents).pow(2).mean().sqrt())

    coarse, fine = missed_by(20), missed_by(100)
    assert fine < coarse / 2
    assert fine < 0.03  # of latents whose standard deviation is 1


# Settings ---------------------------------------------------------------------------------------------


def settled(method, **given):
    left_out = dict.fromkeys(["draws", "seed", "inversion_steps", "look_timestep"])
    return settled_latents(method, (50, 400), **{**left_out, **given}, schedule=1000)


def test_what_is_left_out():
    assert settled("noising") == Noising((50, 400), 4, 0)
    assert settled("predicted", seed=2) == Predicted((50, 400), 4, 2, 0)
    assert settled("inversion") == Inversion((50, 400), 20)
    assert settled("inversion", inversion_steps=1000).rows == 1


def test_what_provenance_says():
    assert settled("predicted").settings == {
        "latents": "predicted",
        "timesteps": (50, 400),
        "draws": 4,
        "seed": 0,
        "look_timestep": 0,
    }
    assert settled("inversion").settings == {
        "latents": "inversion",
        "timesteps": (50, 400),
        "inversion_steps": 20,
    }


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True), st.sampled_from([1000, 1024, 997]))
def test_the_steps_that_are_advised_pass_every_timestep(timesteps, size):
    timesteps = tuple(step for step in timesteps if step < size) or (0,)
    steps = fewest_steps(timesteps, size)
    passed = {number * (size // steps) for number in range(steps)}
    assert passed.issuperset(timesteps)
    left_out = dict.fromkeys(["draws", "seed", "look_timestep"])
    method = settled_latents("inversion", timesteps, **left_out, inversion_steps=steps, schedule=size)
    assert method == Inversion(timesteps, steps)


@given(st.lists(st.integers(-3, 1200), max_size=4), st.integers(-1, 1200))
def test_an_inversion_is_refused_or_passes_every_timestep(timesteps, steps):
    left_out = dict.fromkeys(["draws", "seed", "look_timestep"])
    try:
        method = settled_latents("inversion", timesteps, **left_out, inversion_steps=steps, schedule=1000)
    except CaptureError:
        return
    inverse = schedule().inverse(steps)
    assert set(method.timesteps) <= set(inverse.timesteps.tolist())
