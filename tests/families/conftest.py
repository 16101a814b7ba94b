"""Tiny pipelines of the families, and one call of each."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline

from attnviz.testing import write_family_checkpoint

CALLS = {
    "audioldm2": {"audio_length_in_s": 1.28},
    "stable-audio": {"audio_end_in_s": 1.0},
    "stable-audio-3": {"duration": 3.0, "guidance_scale": 3.0},
    "longcat-audio-dit": {"audio_duration_s": 3.0},
    "ace-step": {"audio_duration": 2.0, "guidance_scale": 3.0, "lyrics": "la la"},
}


class FamilyPipe:
    """A pipeline, and how it is called."""

    def __init__(self, name, folder):
        self.name, self.pipe = name, DiffusionPipeline.from_pretrained(folder)
        self.pipe.set_progress_bar_config(disable=True)

    @property
    def denoiser(self):
        return self.pipe.unet if self.name == "audioldm2" else self.pipe.transformer

    def __call__(self, prompt, **changes):
        call = {**CALLS[self.name], "num_inference_steps": 2, "output_type": "latent", **changes}
        call.setdefault("generator", torch.Generator().manual_seed(0))
        return torch.as_tensor(self.pipe(prompt, **call).audios)


@pytest.fixture(scope="session")
def family_pipe(tmp_path_factory):
    """Load the tiny pipeline of a family, each once."""
    made = {}

    def load(name):
        if name not in made:
            folder = write_family_checkpoint(tmp_path_factory.mktemp("families") / name, name)
            made[name] = FamilyPipe(name, folder)
        return made[name]

    return load
