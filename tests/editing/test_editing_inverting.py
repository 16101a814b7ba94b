"""Real clips: inverted, come back to, and edited."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attnviz
from attnviz.diffusion.clip import encode, read_clip
from attnviz.editing import invert, swap
from attnviz.editing.inverting import InvertedClip
from attnviz.errors import AttnVizError, AudioError, PromptError

CLIP = (np.sin(np.arange(32_000) / 9) * np.linspace(0.1, 0.4, 32_000)).astype(np.float32)
PROMPT = "a dog barks"


@pytest.fixture
def of_fixed_noise(pipe, monkeypatch):
    """A U-Net that predicts the same noise whatever it sees: DDIM inverts it exactly."""
    noise = torch.randn(1, 4, 32, 128, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(pipe.unet, "forward", lambda sample, *a, **k: (noise.expand(len(sample), -1, -1, -1),))
    return pipe


@pytest.mark.parametrize("method", ["negative-prompt", "ddim"])
@pytest.mark.parametrize("steps", [7, 50])
def test_a_clip_is_come_back_to(of_fixed_noise, method, steps):
    clip = invert(of_fixed_noise, CLIP, PROMPT, num_inference_steps=steps, method=method)
    with torch.no_grad():
        wanted = encode(of_fixed_noise, read_clip(CLIP, normalize=True, overlap=0.0, column=1).pixels)
    assert clip.seconds == 2.0
    assert float((clip.latents - wanted).abs().max()) > 1  # it is noise
    again = clip.pipeline(of_fixed_noise)
    settings = {"guidance_scale": 5.0, "output_type": "latent"}
    latents = again(PROMPT, latents=clip.latents, **clip.arguments(PROMPT, settings)).latents
    torch.testing.assert_close(latents, wanted, atol=2e-3, rtol=1e-3)
    assert again.duration == 2.0


def test_guidance_cancels_for_the_source_with_negative_prompt_inversion(pipe):
    clip = invert(pipe, CLIP, PROMPT, num_inference_steps=2)
    call = {"clip": clip, "output_type": "latent", "self_replace_steps": 0.5}
    guided = swap(pipe, PROMPT, "a cat barks", guidance_scale=6.0, **call)
    plain = swap(pipe, PROMPT, "a cat barks", guidance_scale=1.0, **call)
    torch.testing.assert_close(guided.output.latents[0], plain.output.latents[0], atol=1e-3, rtol=1e-3)
    assert float((guided.output.latents[1] - plain.output.latents[1]).abs().max()) > 1e-2
    assert guided.maps.grid.audio_seconds == 2.0
    assert guided.maps.provenance["scheduler"] == "DDIMScheduler"
    assert type(pipe.scheduler).__name__ == "PNDMScheduler"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "magic"}, AttnVizError, "ddim.*negative-prompt"),
        ({"num_inference_steps": 0}, AttnVizError, "num_inference_steps"),
        ({"num_inference_steps": 1001}, AttnVizError, "1000 steps"),
        ({"prompt": " "}, PromptError, "empty"),
        ({"audio": np.zeros(200_000, np.float32)}, AudioError, "10.24 s can be edited"),
        ({"audio": "no such file.wav"}, AudioError, "no such file"),
    ],
)
def test_what_cannot_be_inverted(pipe, no_model_runs, arguments, error, message):
    with pytest.raises(error, match=message):
        invert(pipe, **{"audio": CLIP, "prompt": PROMPT, **arguments})


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("a cat barks", {}, "inverted with 'a dog barks'"),
        (PROMPT, {"num_inference_steps": 9}, "num_inference_steps=9"),
        (PROMPT, {"negative_prompt": "wind"}, "negative_prompt='wind'"),
        (PROMPT, {"width": 512}, "width=512"),
        (PROMPT, {"latents": torch.zeros(1, 4, 32, 128)}, "latents="),
    ],
)
def test_a_call_that_does_not_fit_the_clip(pipe, no_model_runs, source, arguments, message):
    clip = InvertedClip(torch.zeros(1, 4, 32, 128), PROMPT, 2, 2.0, "negative-prompt")
    with pytest.raises(AttnVizError, match=message):
        swap(pipe, source, "a cat meows", clip=clip, **arguments)


def test_the_scheduler_samples_the_timesteps_that_were_inverted(pipe):
    clip = InvertedClip(torch.zeros(1, 4, 32, 128), PROMPT, 4, 2.0, "ddim")
    again = clip.pipeline(pipe)
    again.scheduler.set_timesteps(4)
    assert again.scheduler.timesteps.tolist() == [750, 500, 250, 0]
    assert isinstance(again, attnviz.AuffusionPipeline)
    assert again.unet is pipe.unet
