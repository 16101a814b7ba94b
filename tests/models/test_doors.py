"""What a checkpoint, a LoRA, a textual inversion or an argument may be: refused before anything is run."""

from __future__ import annotations

import copy
import json
import time

import numpy as np
import pytest
import torch

import attnviz
from attnviz.errors import AttnVizError, CheckpointError, PromptError
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline
from attnviz.testing import write_plain_checkpoint
from attnviz.text import clip_token_table

SMALL = {"height": 64, "width": 128, "num_inference_steps": 2, "output_type": "latent"}
PROMPT = "a dog barks, then rain falls"


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded_once):
    return quiet(copy.deepcopy(loaded_once))


@pytest.fixture
def plain(plain_checkpoint):
    return quiet(attnviz.load(plain_checkpoint))


@pytest.fixture
def folder(tmp_path):
    return write_plain_checkpoint(tmp_path / "plain", published=False)


def lora(*encoder_keys, wrong=False):
    """A LoRA as diffusers saves it: of one layer of the U-Net, and of the text encoder where keys are given."""
    place = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    keys = {f"{place}.lora_A.weight": torch.ones(2, 32), f"{place}.lora_B.weight": torch.ones(32, 2)}
    for key in encoder_keys:
        keys[f"{key}.lora_A.weight"] = torch.ones(2, 5 if wrong else 32)
        keys[f"{key}.lora_B.weight"] = torch.ones(32, 2)
    return keys


ENCODER = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


def test_a_lora_of_a_text_encoder_is_attached_whole_or_not_at_all(pipe, plain):
    width = pipe.unet.config.cross_attention_dim
    keys = {name: value[:, :width] if "lora_A" in name else value for name, value in lora(ENCODER).items()}
    before = dict(pipe.unet.named_parameters())
    with pytest.raises(CheckpointError, match="text encoder of Stable Diffusion"):
        pipe.load_lora_weights(keys)
    assert {name: id(value) for name, value in pipe.unet.named_parameters()} == {
        name: id(value) for name, value in before.items()
    }
    pipe.load_lora_weights({name: value for name, value in keys.items() if name.startswith("unet.")})
    assert list(pipe.unet.peft_config) == ["default_0"]
    with pytest.raises(RuntimeError):  # peft's own, on a matrix of the wrong width
        plain.load_lora_weights(lora(ENCODER, wrong=True))
    assert not getattr(plain.unet, "peft_config", {})
    plain.load_lora_weights(lora(ENCODER))
    assert list(plain.unet.peft_config) == ["default_0"]


def test_a_textual_inversion_is_for_the_plain_layout(pipe):
    with pytest.raises(CheckpointError, match="adapter layout"):
        pipe.load_textual_inversion({"<x>": torch.ones(32)})


def test_a_textual_inversion_of_several_vectors_is_one_word(plain):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    plain.load_textual_inversion({"<rattle>": vectors})
    prompt = "a dog, <rattle> and <rattle>, rain"
    with attnviz.trace(plain, tokens="all") as trace:
        plain(prompt, generator=torch.Generator().manual_seed(0), **SMALL)
    table = trace.maps.tokens[0]
    assert table.prompt == prompt
    assert table.words == ["a", "dog", "rattle", "and", "rattle", "rain"]
    ids = plain.tokenizer(plain.maybe_convert_prompt(prompt, plain.tokenizer))["input_ids"]
    assert table.rows["token_id"].tolist()[: len(ids)] == ids
    first, second = (table.find("rattle", occurrence=which) for which in (0, 1))
    assert len(first) == len(second) == 3
    assert len(table.find("<rattle> and <rattle>")) == 7
    for position in (*first, *second):
        assert table.rows["text"][position] == "<rattle>"
    heat = trace.maps.heatmap("rattle", occurrence=1)
    each = trace.maps["mid_block.attentions.0"].sel(token=second)
    assert heat.shape == (8, 16)
    assert each.sizes["token"] == 3


def test_words_are_as_they_were_without_one(plain):
    assert clip_token_table(plain.tokenizer, PROMPT).words == ["a", "dog", "barks", "then", "rain", "falls"]


@pytest.mark.parametrize("limit", [500, None])
def test_a_tokenizers_limit_beyond_the_encoders_positions(folder, limit):
    path = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("model_max_length", None)
    if limit:
        config["model_max_length"] = limit
    path.write_text(json.dumps(config))
    pipe = quiet(attnviz.load(folder))
    assert pipe.tokenizer.model_max_length == 77
    assert pipe(PROMPT, **SMALL).latents.shape == (1, 4, 8, 16)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"attention_head_dim": 0}, "unet could not be read"),
        ("unet", {"layers_per_block": 10**9}, "1000000000 layers"),
        ("unet", {"layers_per_block": [2, 2, 10**9, 2]}, "1000000000 layers"),
        ("vae", {"layers_per_block": 10**9}, "1000000000 layers"),
        ("vae", {"scaling_factor": "x"}, "scaling_factor 'x'"),
        ("vae", {"scaling_factor": 0}, "scaling_factor 0"),
        ("text_encoder", {"num_hidden_layers": 10**9}, "1000000000 layers"),
    ],
)
def test_configurations_that_cannot_be(folder, part, change, words):
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=words):
        attnviz.load(folder)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"eta": float("nan")}, "eta"),
        ({"guidance_rescale": float("nan")}, "guidance_rescale"),
        ({"guidance_rescale": "x"}, "guidance_rescale"),
        ({"generator": 5}, "manual_seed"),
        ({"generator": [torch.Generator(), 5]}, "manual_seed"),
    ],
)
def test_arguments_that_mean_nothing(pipe, given, words):
    with pytest.raises(AttnVizError, match=words):
        pipe(PROMPT, **SMALL, **given)


@pytest.mark.parametrize("skip", [-1, 99, 1.5, "x", True])
def test_clip_skip_of_layers_that_there_are(plain, skip):
    with pytest.raises(PromptError, match="clip_skip"):
        plain(PROMPT, **SMALL, clip_skip=skip)


def test_clip_skip_works_or_is_refused_by_name(plain):
    if hasattr(plain.text_encoder, "text_model"):
        plain(PROMPT, **SMALL, clip_skip=1)
    else:
        with pytest.raises(PromptError, match="clip_skip=1 cannot be done"):
            plain(PROMPT, **SMALL, clip_skip=1)


def test_a_scheduler_that_is_none(pipe):
    with pytest.raises(CheckpointError, match="scheduler=5 is a int"):
        AuffusionAudioToAudioPipeline.from_pipe(pipe, scheduler=5)


def test_what_is_drawn_anew_has_the_level_of_the_clip(pipe):
    """The model works at one level whatever the clip's; what it draws is brought to the clip's own."""
    inpaint = quiet(AuffusionInpaintPipeline.from_pipe(pipe))
    loud = torch.rand(32_000, generator=torch.Generator().manual_seed(1)) - 0.5
    loud *= 0.95 / loud.abs().max()
    call = {"span": (0.8, 1.6), "width": 200, "num_inference_steps": 1, "guidance_scale": 1.0}
    drawn = [
        inpaint(PROMPT, audio=level * loud, generator=torch.Generator().manual_seed(0), **call).audios[0]
        for level in (1.0, 0.1)
    ]
    inside = slice(round(0.9 * 16_000), round(1.5 * 16_000))
    assert np.abs(drawn[0][inside]).max() > 1e-3
    np.testing.assert_allclose(drawn[1][inside], 0.1 * drawn[0][inside], atol=1e-4 * np.abs(drawn[0]).max())
