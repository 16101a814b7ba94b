"""Saving a checkpoint, and damage to the parts of the plain layout."""

from __future__ import annotations

import json
import os
import shutil

import peft
import pytest
import torch

import attnviz
from attnviz.errors import CheckpointError, OutputError
from attnviz.io.ownership import why_not_ours
from attnviz.models.pipelines import AuffusionInpaintPipeline
from attnviz.models.pipelines.checkpoints import CHECKPOINT
from attnviz.testing import write_plain_checkpoint


@pytest.fixture
def plain(plain_checkpoint, tmp_path):
    return shutil.copytree(plain_checkpoint, tmp_path / "checkpoint")


def test_feature_extractor_is_written_back(plain, tmp_path):
    (plain / "feature_extractor").mkdir(exist_ok=True)
    content = json.dumps({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224})
    (plain / "feature_extractor" / "preprocessor_config.json").write_text(content)
    pipe = AuffusionInpaintPipeline.from_pipe(attnviz.load(plain))
    pipe.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/feature_extractor/preprocessor_config.json").read_text() == content
    assert why_not_ours(tmp_path / "saved", CHECKPOINT) is None
    attnviz.load(tmp_path / "saved").save_pretrained(tmp_path / "saved", overwrite=True)


def test_attached_lora_is_refused_not_lost(adapter_checkpoint, tmp_path):
    pipe = attnviz.load(adapter_checkpoint)
    before = pipe.unet.state_dict()["mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"].clone()
    config = peft.LoraConfig(r=2, target_modules=["attn2.to_q", "attn2.to_k"], init_lora_weights=False)
    pipe.unet.add_adapter(config, adapter_name="style")
    with pytest.raises(CheckpointError, match=r"LoRA \(style\).*unet.*fuse_lora"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "saved")
    after = attnviz.load(tmp_path / "saved").unet.state_dict()
    assert not torch.equal(after["mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"], before)


def test_a_checkpoint_of_others_is_not_replaced(adapter_checkpoint, tmp_path):
    pipe = attnviz.load(adapter_checkpoint)
    published = shutil.copytree(adapter_checkpoint, tmp_path / "published")
    with pytest.raises(OutputError, match="no file that shows"):
        pipe.save_pretrained(published, overwrite=True)
    pipe.save_pretrained(tmp_path / "mine")
    pipe.save_pretrained(tmp_path / "mine", overwrite=True)
    (tmp_path / "mine" / "README.md").touch()
    with pytest.raises(OutputError, match=r"holds README\.md, which attnviz did not write"):
        pipe.save_pretrained(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "README.md").exists()


@pytest.mark.parametrize("files", [["vocab.json"], ["merges.txt"], ["vocab.json", "merges.txt"]])
def test_missing_tokenizer_files_are_not_invented(plain, files):
    folder = plain / "tokenizer"
    (folder / "tokenizer.json").unlink(missing_ok=True)
    for file in files:
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        attnviz.load(plain)


@pytest.mark.parametrize("content", ["{", "{}", '{"model": 3}', "[]"])
def test_tokenizer_that_cannot_be_parsed(plain, content):
    (plain / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        attnviz.load(plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}},
        {"normalizer": {"type": "NoSuchNormalizer"}},
    ],
)
def test_tokenizer_at_which_the_rust_library_raises_a_bare_exception(tmp_path, changes):
    plain = write_plain_checkpoint(tmp_path / "plain", published=False)
    path = plain / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match="tokenizer"):
        attnviz.load(plain)


def test_tokenizer_with_more_ids_than_the_encoder_knows(plain):
    folder = plain / "tokenizer"
    pipe = attnviz.load(plain)
    pipe.tokenizer.add_tokens(["quux"])
    shutil.rmtree(folder)
    pipe.tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="the tokenizer in tokenizer has ids up to"):
        attnviz.load(plain)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
@pytest.mark.parametrize("content", ["[]", "3", '"a"'])
def test_configuration_that_is_no_object_is_said_in_our_words(plain, part, content):
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    (plain / part / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{part}.*not a JSON object") as caught:
        attnviz.load(plain)
    assert "huggingface" not in str(caught.value)


class _Evil:
    def __reduce__(self):
        return (os.getcwd, ())


@pytest.mark.parametrize("file", ["text_encoder/pytorch_model.bin", "unet/diffusion_pytorch_model.bin"])
def test_no_advice_to_unpickle_is_passed_on(tmp_path, file):
    plain = write_plain_checkpoint(tmp_path / "plain", published=True)
    for path in (plain / file).parent.glob("*.safetensors"):
        path.unlink()
    torch.save({"a": _Evil()}, plain / file)
    with pytest.raises(CheckpointError, match="could not be read as a") as caught:
        attnviz.load(plain)
    assert "weights_only" not in str(caught.value)
