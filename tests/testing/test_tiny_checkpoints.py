"""The tiny checkpoints have the published layouts, anatomy and tokenizer behaviour."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from attnviz.errors import CheckpointError
from attnviz.testing import ENCODERS, make_tokenizer, write_adapter_checkpoint, write_plain_checkpoint


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory):
    return write_adapter_checkpoint(tmp_path_factory.mktemp("adapter"), encoders=ENCODERS)


def test_published_layout_is_that_of_the_reference_checkpoint(tmp_path, golden_dir):
    reference = golden_dir / "adapter1"
    folder = write_adapter_checkpoint(tmp_path)
    assert files(folder) == files(reference)
    for name in ("condition_config.json", "condition_adapter_0/config.json", "vocoder/config.json"):
        ours, theirs = (json.loads((root / name).read_text()) for root in (folder, reference))
        ours, theirs = (x[0] if isinstance(x, list) else x for x in (ours, theirs))
        assert ours.keys() == theirs.keys(), name
    for name in ("condition_adapter_0/condition_adapter.pt", "text_encoder_0/pytorch_model.bin"):
        ours, theirs = (torch.load(root / name, weights_only=True) for root in (folder, reference))
        assert ours.keys() == theirs.keys(), name
    ours, theirs = (torch.load(r / "vocoder/vocoder.pt", weights_only=True) for r in (folder, reference))
    assert ours.keys() == theirs.keys() == {"generator"}
    # Not every block has as many residual blocks there; the names of the first one and of the ends are the same.
    for lead in ("conv_pre", "ups.3", "resblocks.0", "conv_post"):
        pick = [{k: v.ndim for k, v in x["generator"].items() if k.startswith(lead)} for x in (ours, theirs)]
        assert pick[0] == pick[1]
    ours, theirs = (json.loads((r / "scheduler/scheduler_config.json").read_text()) for r in (folder, reference))
    assert ours == theirs


def test_vae_attention_has_the_old_names_and_diffusers_reads_them(adapter_folder):
    state = torch.load(adapter_folder / "vae/diffusion_pytorch_model.bin", weights_only=True)
    old = [name for name in state if ".mid_block.attentions.0." in name]
    assert {name.split(".")[4] for name in old} == {"group_norm", "query", "key", "value", "proj_attn"}
    vae = AutoencoderKL.from_pretrained(adapter_folder / "vae", use_safetensors=False)
    attention = vae.decoder.mid_block.attentions[0]
    lead = "decoder.mid_block.attentions.0."
    assert torch.equal(attention.to_q.weight, state[lead + "query.weight"])
    assert torch.equal(attention.to_out[0].bias, state[lead + "proj_attn.bias"])
    assert vae.config.scaling_factor == 0.18215
    with torch.no_grad():
        image = vae.decode(torch.randn(1, 4, 3, 5)).sample
    assert image.shape == (1, 3, 24, 40)


@pytest.mark.parametrize("published", [True, False])
def test_unet_anatomy_and_odd_latent_sizes(tmp_path, published):
    folder = write_adapter_checkpoint(tmp_path, published=published)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=not published)
    cross = [name for name in unet.attn_processors if ".attn2." in name]
    assert [sum(name.startswith(part) for name in cross) for part in ("down", "mid", "up")] == [6, 1, 9]
    assert all(module.heads == 4 for name, module in unet.named_modules() if name.endswith(("attn1", "attn2")))
    with torch.no_grad():
        out = unet(torch.randn(2, 4, 25, 57), 7, torch.randn(2, 77, 24)).sample
    assert out.shape == (2, 4, 25, 57)
    assert out.isfinite().all()


def test_attention_is_peaked_and_depends_on_the_prompt(tmp_path):
    folder = write_plain_checkpoint(tmp_path, published=False)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    attention = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    hidden, keys = torch.randn(1, 40, 16), torch.nn.functional.layer_norm(torch.randn(1, 77, 32), (32,))
    with torch.no_grad():
        query = attention.head_to_batch_dim(attention.to_q(hidden))
        key = attention.head_to_batch_dim(attention.to_k(keys))
        scores = attention.get_attention_scores(query, key)
    assert scores.amax(-1).mean() > 4 / 77


@pytest.mark.parametrize("published", [True, False])
def test_plain_layout_runs_in_diffusers(tmp_path, published):
    folder = write_plain_checkpoint(tmp_path, published=published)
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=not published)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.scheduler).__name__ == "PNDMScheduler"
    image = pipe("a dog barks", height=64, width=136, num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 64, 136, 3)
    assert np.isfinite(image).all() and image.std() > 0.01
    assert (folder / "vocoder").is_dir()


def test_vocoder_can_be_left_out(tmp_path):
    assert not (write_plain_checkpoint(tmp_path, vocoder=False) / "vocoder").exists()


def test_no_pickles_and_one_tokenizer_file_in_todays_layout(tmp_path):
    folder = write_adapter_checkpoint(tmp_path, encoders=ENCODERS, published=False)
    assert not [name for name in files(folder) if name.endswith((".bin", ".pt", "vocab.json", "vocab.txt"))]
    for i in range(len(ENCODERS)):
        assert (folder / f"text_encoder_{i}/tokenizer.json").is_file()
    state = load_file(folder / "vocoder/vocoder.safetensors")
    assert state["ups.0.weight_v"].shape == (32, 16, 10)


def test_vocoder_numbers(adapter_folder):
    config = json.loads((adapter_folder / "vocoder/config.json").read_text())
    assert config["num_mels"] == 256 and config["resblock"] == "1"
    assert np.prod(config["upsample_rates"]) == config["hop_size"] == 160
    gaps = [k - u for k, u in zip(config["upsample_kernel_sizes"], config["upsample_rates"], strict=True)]
    assert sum(gap % 2 for gap in gaps) == 1
    state = torch.load(adapter_folder / "vocoder/vocoder.pt", weights_only=True)["generator"]
    ratio = state["ups.0.weight_g"].flatten() / state["ups.0.weight_v"].flatten(1).norm(dim=1)
    assert ratio.std() > 0.05  # leaving the weight norm out shows


def test_an_adapters_answer_to_zero_varies(adapter_folder):
    state = torch.load(adapter_folder / "condition_adapter_1/condition_adapter.pt", weights_only=True)
    assert all(state[name].std() > 0.1 for name in ("proj.bias", "norm.weight", "norm.bias"))


def test_a_seed_fixes_everything_and_the_global_generator_is_left_alone(tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = write_adapter_checkpoint(tmp_path / "1", encoders=("t5", "clap"), published=False, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.randn(5)
    again = write_adapter_checkpoint(tmp_path / "2", encoders=("t5", "clap"), published=False, seed=3)
    other = write_adapter_checkpoint(tmp_path / "3", encoders=("t5", "clap"), published=False, seed=4)
    assert files(first) == files(again)
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in files(first))
    differing = [n for n in files(first) if (first / n).read_bytes() != (other / n).read_bytes()]
    assert {name for name in files(first) if name.endswith(".safetensors")} == set(differing)


def test_written_in_under_a_second(tmp_path):
    write_adapter_checkpoint(tmp_path / "warm")
    times = []
    for i in range(3):
        begin = time.perf_counter()
        write_adapter_checkpoint(tmp_path / str(i), encoders=ENCODERS)
        times.append(time.perf_counter() - begin)
    assert min(times) < 1.0


@pytest.mark.parametrize("encoders", [(), "clip", ("clip", "word2vec")])
def test_unknown_encoders_are_refused(tmp_path, encoders):
    with pytest.raises(CheckpointError, match="clip, t5, clap, bert"):
        write_adapter_checkpoint(tmp_path, encoders=encoders)
    assert not list(tmp_path.iterdir())


PIECES = {
    "clip": ["<|startoftext|>", "a</w>", "dog</w>", "bar", "ks</w>", ",</w>", "dog</w>", "<|endoftext|>"],
    "t5": ["▁", "A", "▁dog", "▁bark", "s", ",", "▁dog", "</s>"],
    "clap": ["<s>", "A", "Ġdog", "Ġbark", "s", ",", "Ġdog", "</s>"],
    "bert": ["[CLS]", "a", "dog", "bark", "##s", ",", "dog", "[SEP]"],
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_tokenizers_behave_as_their_kind_does(kind):
    tokenizer = make_tokenizer(kind)
    assert tokenizer.convert_ids_to_tokens(tokenizer("A dog barks, dog").input_ids) == PIECES[kind]


def test_clip_cuts_at_77_and_knows_every_byte():
    tokenizer = make_tokenizer("clip")
    ids = tokenizer("dog " * 100, truncation=True).input_ids
    assert len(ids) == 77 and ids[-1] == tokenizer.eos_token_id
    unknown = tokenizer("狗 🐕 é \u0301 ½").input_ids[1:-1]
    assert tokenizer.unk_token_id not in unknown


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("published", [True, False])
def test_both_tokenizer_formats_read_back_as_the_same_tokenizer(tmp_path, kind, published):
    from transformers import AutoTokenizer

    folder = write_adapter_checkpoint(tmp_path, encoders=(kind,), published=published)
    loaded = AutoTokenizer.from_pretrained(folder / "text_encoder_0")
    made = make_tokenizer(kind)
    text = "A “Café” 🐕 don't,  RAIN\tfalls; meows 狗叫 e\u0301"
    assert loaded(text).input_ids == made(text).input_ids
    assert loaded.model_max_length == made.model_max_length
