"""Tiny models of random weights in the layout of published embedders, and folders of clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from attnviz.testing import make_tokenizer

RATE = 16_000


def write_clap(folder: Path, seed: int = 0) -> Path:
    """Write a tiny CLAP with its feature extractor and tokenizer, as published ones are."""
    tokenizer = make_tokenizer("clap")
    text = {
        "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1,
        "vocab_size": len(tokenizer), "max_position_embeddings": 40, "pad_token_id": 1, "projection_dim": 16,
    }  # fmt: skip
    audio = {
        "spec_size": 16, "window_size": 4, "num_mel_bins": 8, "depths": [1, 1], "num_attention_heads": [1, 1],
        "num_hidden_layers": 2, "patch_embeds_hidden_size": 8, "hidden_size": 16, "projection_dim": 16,
        "patch_size": 2, "patch_stride": [2, 2], "patch_embed_input_channels": 1, "enable_fusion": False,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=16)).eval()
    model.save_pretrained(folder)
    ClapFeatureExtractor(feature_size=8, hop_length=20_000, truncation="rand_trunc").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_pe_audio_frame(folder: Path) -> Path:
    """Write a tiny PE-A-Frame with its feature extractor."""
    text = {
        "model_type": "modernbert", "vocab_size": 60, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0,
    }  # fmt: skip
    dac = {
        "model_type": "dac", "encoder_hidden_size": 4, "downsampling_ratios": [2, 8, 10, 12], "codebook_dim": 4,
        "n_codebooks": 1,
    }  # fmt: skip
    audio = {
        "dac_config": dac, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 8,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.PeAudioConfig(text_config=text, audio_config=audio)
        transformers.PeAudioFrameLevelModel(config).eval().save_pretrained(folder)
    transformers.PeAudioFeatureExtractor().save_pretrained(folder)
    return folder


def tone(seed: int, seconds: float = 0.5, level: float = 0.1, rate: int = RATE) -> np.ndarray:
    """Return noise whose colour depends on the seed."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate) + seed % 7)
    smooth = np.convolve(noise, np.ones(1 + seed % 5), mode="same")
    return (level * smooth / np.abs(smooth).max()).astype(np.float32)


def write_clips(folder: Path, seeds: range, *, captions: bool = False, **how: float) -> Path:
    """Write a WAV file for each seed, with captions of one of three words if asked for."""
    folder.mkdir(parents=True)
    for seed in seeds:
        soundfile.write(folder / f"{seed:03d}.wav", tone(seed, **how), int(how.get("rate", RATE)))
    if captions:
        rows = [f"{seed:03d}.wav,a {('dog', 'cat', 'bird')[seed % 3]} sounds" for seed in seeds]
        (folder / "metadata.csv").write_text("\n".join(["file_name,caption", *rows]), encoding="utf-8")
    return folder
