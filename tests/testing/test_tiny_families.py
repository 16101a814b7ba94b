"""Tiny checkpoints of other text-to-audio models: they load by the libraries' own doors, and make sound."""

import math

import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    MusicgenForConditionalGeneration,
    MusicgenMelodyForConditionalGeneration,
)

from attnviz.errors import CheckpointError
from attnviz.testing import FAMILIES, write_family_checkpoint

PROMPT = "a dog barks, then rain falls"
DIFFUSION = {
    "audioldm2": ({"audio_length_in_s": 1.28}, 1.28 * 16000),
    "stable-audio": ({"audio_end_in_s": 1.0}, 160),
    "stable-audio-3": ({"duration": 3.0, "guidance_scale": 3.0}, 48),
    "longcat-audio-dit": ({"audio_duration_s": 3.0}, None),
    "ace-step": ({"audio_duration": 2.0}, 400),
}


@pytest.mark.parametrize("family", DIFFUSION)
def test_a_pipeline_loads_and_generates(tmp_path, family):
    settings, samples = DIFFUSION[family]
    pipe = DiffusionPipeline.from_pretrained(write_family_checkpoint(tmp_path / family, family))
    pipe.set_progress_bar_config(disable=True)
    made = [
        torch.as_tensor(
            pipe(PROMPT, num_inference_steps=2, generator=torch.Generator().manual_seed(0), **settings).audios
        )
        for _ in range(2)
    ]
    assert torch.equal(*made)
    assert torch.isfinite(made[0]).all()
    assert made[0].std() > 0
    if samples is not None:
        assert made[0].shape[-1] == math.floor(samples)


def test_musicgen_loads_and_generates(tmp_path):
    folder = write_family_checkpoint(tmp_path / "musicgen", "musicgen")
    model = MusicgenForConditionalGeneration.from_pretrained(folder)
    inputs = AutoProcessor.from_pretrained(folder)(text=[PROMPT], return_tensors="pt", padding=True)
    audio = model.generate(**inputs, max_new_tokens=20)
    # 20 positions are 17 frames: codebook k is k positions late. A frame is 8 samples of 400 a second.
    assert audio.shape == (1, 1, 17 * 8)


def test_musicgen_melody_loads_and_generates(tmp_path):
    folder = write_family_checkpoint(tmp_path / "melody", "musicgen-melody")
    model = MusicgenMelodyForConditionalGeneration.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)([PROMPT], return_tensors="pt")
    audio = model.generate(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, max_new_tokens=20)
    assert audio.shape == (1, 1, 17 * 8)


@pytest.mark.parametrize("family", ["audioldm2", "musicgen"])
def test_the_seed_fixes_the_weights(tmp_path, family):
    before = torch.random.get_rng_state()
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = write_family_checkpoint(tmp_path / name, family, seed=seed)
        files.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.safetensors")})
    assert files[0] == files[1] != files[2]
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="audioldm2, stable-audio"):
        write_family_checkpoint(tmp_path / "x", "musiclm")
    assert len(FAMILIES) == 9
