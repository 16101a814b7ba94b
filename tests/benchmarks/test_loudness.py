"""benchmarks/loudness.py: ways of guidance, the sampler, and what is made of the rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import attnviz

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from loudness_parts.guidance import GUIDES, mean_free, plain, projected, within
from loudness_parts.report import summary
from loudness_parts.sampling import sample

SHAPE = (2, 3, 4, 10)


def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)


@pytest.mark.parametrize("name", list(GUIDES))
def test_at_scale_1_every_kind_of_guidance_is_the_conditional_prediction(name):
    conditional, unconditional = pair()
    torch.testing.assert_close(GUIDES[name](conditional, unconditional, 1.0, 500), conditional)


def test_an_interval_guides_below_its_timestep_and_not_from_there_on():
    conditional, unconditional = pair()
    guide = within(880)
    torch.testing.assert_close(guide(conditional, unconditional, 4.0, 880), conditional)
    torch.testing.assert_close(
        guide(conditional, unconditional, 4.0, 879), plain(conditional, unconditional, 4.0, 879)
    )


def test_mean_free_guidance_keeps_each_channel_s_mean_and_projected_guidance_the_length_along():
    conditional, unconditional = pair()
    guided = mean_free(conditional, unconditional, 7.5, 500)
    torch.testing.assert_close(guided.mean((2, 3)), conditional.mean((2, 3)))
    assert not torch.allclose(guided, conditional)
    along = (projected(conditional, unconditional, 7.5, 500) * conditional).sum((1, 2, 3))
    torch.testing.assert_close(along, conditional.square().sum((1, 2, 3)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("guide", "interval"), [(plain, (0.0, 1.0)), (within(500), (0.0, 0.5))])
def test_the_sampler_is_the_pipeline_s_own(guide, interval):
    """Of the timesteps 999, 666 and 333, the second interval guides at the last alone."""
    pipe = attnviz.load()
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a dog barks", "rain falls"]
    latents, predictions = sample(pipe, prompts, guide, 3.0, steps=3, seeds=[4, 5])
    noise = torch.stack([torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(seed)) for seed in (4, 5)])
    call = {"num_inference_steps": 3, "guidance_scale": 3.0, "latents": noise, "output_type": "latent"}
    theirs = pipe(prompts, guidance_interval=interval, **call).latents
    torch.testing.assert_close(latents, theirs, rtol=1e-3, atol=1e-3)
    other = pipe(prompts, guidance_interval=(0.0, 0.8), **call).latents
    assert not torch.allclose(latents, other, rtol=1e-3, atol=1e-3)
    assert list(predictions) == pipe.scheduler.timesteps.tolist()


def test_gaps_are_those_to_the_scenes_of_the_class():
    scenes = pd.DataFrame({"class": ["Rain", "Rain", "Rooster"], "level": [-28.0, -32.0, -40.0]})
    rows = [
        ("Rain", -33.0, "Rain"),
        ("Rain", -31.0, "Rain"),
        ("Rooster", -52.0, "Rain"),
        ("Rooster", -44.0, "Rooster"),
    ]
    guidance = pd.DataFrame(rows, columns=["class", "level", "heard"]).assign(guide="plain", scale=4.0)
    found = summary(guidance, scenes).loc[("plain", 4.0)]
    assert found["gap"] == -3.5  # of -3, -1, -12 and -4
    assert found["worst"] == -8
    assert (found["quiet"], found["right"], found["generations"]) == (0.25, 0.75, 4)
