"""Noise schedules, beside the scheduler of each kind: with it, a perfect denoiser finds the clip again."""

from __future__ import annotations

import diffusers
import pytest
import torch

from attnviz.diffusion.continuous import schedule_of
from attnviz.diffusion.noising import Inversion
from attnviz.errors import CaptureError

CLIP, NOISE = torch.randn(2, 1, 5, 7, generator=torch.Generator().manual_seed(0)).split(1)
START = 400


def flow(**settings):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    shift = settings.get("shift", 1.0)
    share = START / 1000  # the scheduler shifts what it is given
    scheduler.set_timesteps(sigmas=[share / (shift - (shift - 1) * share), 0.2, 0.1])
    return scheduler


def edm(**settings):
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(solver_order=1, **settings)
    data = scheduler.config.sigma_data
    sigma = data * float(torch.tan(torch.tensor(START / 1000 * torch.pi / 2)))
    scheduler.register_to_config(sigma_max=sigma, sigma_min=sigma / 50)
    scheduler.set_timesteps(6)
    return scheduler


def ddim(prediction):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=prediction, timestep_spacing="trailing")
    scheduler.set_timesteps(1000)
    scheduler.timesteps = scheduler.timesteps[scheduler.timesteps <= START]
    return scheduler


SCHEDULERS = {
    "TangoFlux": lambda: flow(num_train_timesteps=1000),
    "Stable Audio 3, ACE-Step": lambda: flow(num_train_timesteps=1),
    "shifted": lambda: flow(num_train_timesteps=1000, shift=3.0),
    "LongCat": lambda: flow(invert_sigmas=True),
    "Stable Audio": lambda: edm(sigma_data=1.0, prediction_type="v_prediction"),
    "EDM": lambda: edm(sigma_data=0.5, prediction_type="epsilon"),
    "AudioLDM2": lambda: ddim("epsilon"),
    "Tango": lambda: ddim("v_prediction"),
}


def perfect(name, scheduler, samples, step):
    """The prediction, at a step of the scheduler, of a denoiser that knows clip and noise."""
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return CLIP - NOISE if name == "LongCat" else NOISE - CLIP
    if isinstance(scheduler, diffusers.DDIMScheduler):
        kept = scheduler.alphas_cumprod[int(scheduler.timesteps[step])]
        return NOISE if name == "AudioLDM2" else kept**0.5 * NOISE - (1 - kept) ** 0.5 * CLIP
    # `samples` are scaled by 1 / sqrt(sigma^2 + data^2); the output is what makes the clip of them.
    sigma, data = scheduler.sigmas[step], scheduler.config.sigma_data
    noisy = CLIP + sigma * NOISE
    total = (sigma**2 + data**2) ** 0.5
    torch.testing.assert_close(samples, noisy / total, rtol=1e-4, atol=1e-4)
    sign = -1 if scheduler.config.prediction_type == "v_prediction" else 1
    return sign * (CLIP - data**2 / total**2 * noisy) * total / (sigma * data)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_perfect_denoiser_leads_from_the_noised_clip_back_to_it(name):
    """The scheduler's own steps, from the inputs and the timestep that the schedule gives."""
    scheduler = SCHEDULERS[name]()
    schedule = schedule_of(scheduler)
    assert len(schedule) == 1000
    torch.testing.assert_close(schedule.given(START).float(), scheduler.timesteps[0].float())
    given = schedule.noised(CLIP, NOISE, START)
    torch.testing.assert_close(schedule.clean(perfect(name, scheduler, given, 0), given, START), CLIP)
    scales = hasattr(scheduler, "precondition_inputs")
    samples = CLIP + scheduler.sigmas[0] * NOISE if scales else given
    for step, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(samples, timestep) if scales else samples
        if step == 0:
            torch.testing.assert_close(scaled, given)
        samples = scheduler.step(perfect(name, scheduler, scaled, step), timestep, samples).prev_sample
    torch.testing.assert_close(samples, CLIP, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["TangoFlux", "LongCat"])
def test_inversion_with_a_perfect_denoiser_is_noising(name):
    scheduler = SCHEDULERS[name]()
    schedule = schedule_of(scheduler)
    inversion = Inversion((800, 200), 5)
    assert inversion.needed(schedule) == [0, 200, 400, 600, 800]
    views = inversion.views(CLIP, schedule, lambda samples, timestep: perfect(name, scheduler, samples, 0))
    for samples, timestep in views:
        torch.testing.assert_close(samples, schedule.noised(CLIP, NOISE, timestep))


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_inversion_of_edm_turns_the_clip_to_noise(prediction):
    scheduler = edm(sigma_data=0.5, prediction_type=prediction)
    schedule = schedule_of(scheduler)
    data, seen = 0.5, []

    def predict(samples, timestep):
        """The output at the angle that the samples have, which is one step behind."""
        angle = torch.tensor(max(0, timestep - 200) / 1000 * torch.pi / 2)
        seen.append(timestep)
        velocity = angle.cos() * NOISE - angle.sin() * CLIP / data
        return velocity if prediction == "v_prediction" else -velocity

    views = Inversion((400,), 5).views(CLIP, schedule, predict)
    assert seen == [0, 200, 400]
    torch.testing.assert_close(views[0][0], schedule.noised(CLIP, NOISE, 400), rtol=1e-4, atol=1e-4)


def test_a_schedule_that_is_not_known_is_refused():
    with pytest.raises(CaptureError, match="timestep 0 has no noise.*logarithm"):
        schedule_of(diffusers.EDMEulerScheduler()).given(0)
    with pytest.raises(CaptureError, match="alphas_cumprod"):
        schedule_of(diffusers.KarrasVeScheduler())
