"""Tiny pipelines of the families, and one call of each."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import AutoTokenizer, MusicgenForConditionalGeneration, MusicgenMelodyForConditionalGeneration

from attnviz.testing import write_family_checkpoint

CALLS = {
    "audioldm2": {"audio_length_in_s": 1.28},
    "stable-audio": {"audio_end_in_s": 1.0},
    "stable-audio-3": {"duration": 3.0, "guidance_scale": 3.0},
    "longcat-audio-dit": {"audio_duration_s": 3.0},
    "ace-step": {"audio_duration": 2.0, "guidance_scale": 3.0, "lyrics": "la la"},
}
CODES = {"musicgen": MusicgenForConditionalGeneration, "musicgen-melody": MusicgenMelodyForConditionalGeneration}
PROMPTS = ["a Dog barks, then rain falls", "rain"]
NEW = 12


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


class CodesModel:
    """A model of codes, and how it is called."""

    def __init__(self, name, folder):
        self.name = name
        self.model = CODES[name].from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        site = {"musicgen": "encoder_attn", "musicgen-melody": "self_attn"}[name]
        self.sites = [getattr(layer, site) for layer in self.model.decoder.model.decoder.layers]

    def inputs(self, prompts=PROMPTS):
        return self.tokenizer(prompts, padding=True, return_tensors="pt")

    def __call__(self, prompts=PROMPTS, **changes):
        torch.manual_seed(0)
        return self.model.generate(**self.inputs(prompts), **{"max_new_tokens": NEW, **changes})


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The tiny models of codes, each once."""
    return {
        name: CodesModel(name, write_family_checkpoint(tmp_path_factory.mktemp("musicgen") / name, name))
        for name in CODES
    }
