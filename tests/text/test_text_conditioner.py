"""Encoders, adapters and their checkpoints."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    ClapConfig,
    ClapModel,
    ClapTextModelWithProjection,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from attnviz.errors import CheckpointError, PromptError, TruncationWarning
from attnviz.models.conditioning import Adapter, TextConditioner
from attnviz.models.conditioning.encoders import load_encoder, load_tokenizer, position_limit
from attnviz.testing import ENCODER_WIDTHS, ENCODERS, write_adapter_checkpoint

CLASSES = {"clip": CLIPTextModel, "t5": T5EncoderModel, "clap": ClapTextModelWithProjection, "bert": BertModel}
PROMPT = "A dog barks, then “Café” 🐕 meows"


@torch.no_grad()
def restated(folder, kinds, prompt):
    """The keys, step by step, with plain transformers calls and the formula of a layer norm."""
    keys = []
    for i, kind in enumerate(kinds):
        place = folder / f"text_encoder_{i}"
        ids = AutoTokenizer.from_pretrained(place)(prompt, return_tensors="pt").input_ids
        model = CLASSES[kind].from_pretrained(place).eval()
        hidden = model(ids).last_hidden_state[0].double()
        padded = torch.zeros(77, hidden.shape[1], dtype=torch.float64)
        padded[: len(hidden)] = hidden
        weights = torch.load(folder / f"condition_adapter_{i}/condition_adapter.pt", weights_only=True)
        weights = {name: value.double() for name, value in weights.items()}
        out = padded @ weights["proj.weight"].T + weights["proj.bias"]
        centred = out - out.mean(1, keepdim=True)
        normed = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
        keys.append(normed * weights["norm.weight"] + weights["norm.bias"])
    return torch.cat(keys)


@torch.no_grad()
def test_keys_vs_restatement(four_encoders, conditioner):
    keys = conditioner.encode([PROMPT])
    assert keys.shape == (1, 4 * 77, 24) and keys.dtype == torch.float32
    assert (keys[0].double() - restated(four_encoders, ENCODERS, PROMPT)).abs().max() < 1e-5


@torch.no_grad()
def test_padding_is_the_adapters_answer_to_zero(conditioner):
    keys = conditioner.encode([PROMPT])[0]
    table = conditioner.token_table(PROMPT)
    for i, adapter in enumerate(conditioner.adapters):
        answer = adapter(torch.zeros(1, adapter.proj.in_features))[0]
        padding = keys[table.positions("padding", encoder=i)]
        assert len(padding) > 30
        assert torch.allclose(padding, answer.expand_as(padding), atol=1e-6)
        assert answer.abs().max() > 0.1


@torch.no_grad()
def test_prompts_are_encoded_one_at_a_time(conditioner):
    prompts = ["rain", PROMPT, "a dog " * 10]
    together = conditioner.encode(prompts)
    for i, prompt in enumerate(prompts):
        assert torch.equal(together[i], conditioner.encode([prompt])[0])
    assert torch.equal(conditioner(prompts), together)


@pytest.mark.golden
@torch.no_grad()
def test_keys_vs_the_authors(golden_dir):
    gold = np.load(golden_dir / "gold.npz")
    keys = TextConditioner.from_pretrained(golden_dir / "adapter1").encode([str(gold["adapter1/short|prompt"])])
    assert np.abs(keys[0].numpy() - gold["adapter1/short|embeds"][1]).max() < 5e-6


@torch.no_grad()
def test_long_prompts_are_cut_before_the_encoder(four_encoders, conditioner):
    prompt = "dog cat rain " * 40
    with pytest.warns(TruncationWarning, match="encoder 3 does not get"):
        keys = conditioner.encode([prompt])[0]
    for i, kind in enumerate(ENCODERS):
        place = four_encoders / f"text_encoder_{i}"
        tokenizer = AutoTokenizer.from_pretrained(place)
        ids = tokenizer(prompt, truncation=True, max_length=77, return_tensors="pt").input_ids
        assert ids.shape == (1, 77)
        hidden = CLASSES[kind].from_pretrained(place).eval()(ids).last_hidden_state
        wanted = conditioner.adapters[i](hidden)[0]
        assert torch.allclose(keys[77 * i : 77 * (i + 1)], wanted, atol=1e-5)
    with pytest.warns(TruncationWarning):
        assert conditioner.token_table(prompt).positions("end").tolist() == [76, 153, 230, 307]
    conditioner.encode([prompt], warn=False)
    conditioner.token_table(prompt, warn=False)


@torch.no_grad()
def test_an_encoder_with_fewer_positions_than_keys(tmp_path):
    folder = write_adapter_checkpoint(tmp_path, encoders=("clap",), condition_max_length=200)
    conditioner = TextConditioner.from_pretrained(folder)
    assert position_limit(conditioner.encoders[0]) == 126  # 128 less the two that RoBERTa skips
    assert conditioner.num_keys == 200
    with pytest.warns(TruncationWarning):
        keys = conditioner.encode(["dog " * 300])
    assert keys.shape == (1, 200, 24)
    conditioner.tokenizers[0].model_max_length = 10**30
    assert torch.equal(conditioner.encode(["dog " * 300], warn=False), keys)
    assert conditioner.token_table("dog " * 300, warn=False).positions("end").tolist() == [125]


def test_properties(conditioner):
    assert conditioner.num_keys == 308 and conditioner.cross_attention_dim == 24
    assert conditioner.dtype == torch.float32 and conditioner.device.type == "cpu"
    assert not any(module.training for module in conditioner.modules())


@torch.no_grad()
def test_half_precision(four_encoders, conditioner):
    half = TextConditioner.from_pretrained(four_encoders, torch_dtype=torch.bfloat16)
    keys = half.encode([PROMPT])
    assert keys.dtype == half.dtype == torch.bfloat16
    assert (keys.float() - conditioner.encode([PROMPT])).abs().max() < 0.5
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_gradients_reach_the_adapter(conditioner):
    conditioner.encode(["rain"]).sum().backward()
    assert conditioner.adapters[0].norm.bias.grad is not None
    conditioner.zero_grad()


@pytest.mark.parametrize("prompts", ["a dog", [], [""], [None], None, [b"dog"]])
def test_prompts_that_cannot_be_encoded(conditioner, prompts):
    with pytest.raises(PromptError):
        conditioner.encode(prompts)


@pytest.mark.parametrize("published", [True, False])
def test_saving_and_loading_again_changes_nothing(tmp_path, published):
    folder = write_adapter_checkpoint(tmp_path / "a", encoders=ENCODERS, published=published)
    first = TextConditioner.from_pretrained(folder)
    first.save_pretrained(tmp_path / "b")
    again = TextConditioner.from_pretrained(tmp_path / "b")
    ours, theirs = first.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.token_table(PROMPT) == first.token_table(PROMPT)
    entries = [json.loads((root / "condition_config.json").read_text()) for root in (folder, tmp_path / "b")]
    assert entries[0] == entries[1]
    written = {str(p.relative_to(tmp_path / "b")) for p in (tmp_path / "b").rglob("*") if p.is_file()}
    assert not [name for name in written if name.endswith((".bin", ".pt"))]
    for i in range(4):
        place = f"text_encoder_{i}/"
        assert {place + "model.safetensors", place + "tokenizer.json", place + "config.json"} <= written
        assert f"condition_adapter_{i}/condition_adapter.safetensors" in written
    config = [
        json.loads((root / "condition_adapter_0/config.json").read_text()) for root in (folder, tmp_path / "b")
    ]
    assert config[0] == config[1]


@pytest.mark.parametrize("published", [True, False])
def test_loaded_tensors_are_those_of_the_file(tmp_path, published):
    folder = write_adapter_checkpoint(tmp_path, encoders=ENCODERS, published=published)
    conditioner = TextConditioner.from_pretrained(folder)
    for i, encoder in enumerate(conditioner.encoders):
        place = folder / f"text_encoder_{i}"
        if published:
            state = torch.load(place / "pytorch_model.bin", weights_only=True)
        else:
            state = load_file(place / "model.safetensors")
        for name, tensor in encoder.state_dict().items():
            match = [
                v for k, v in state.items() if k.removeprefix("text_model.") == name.removeprefix("text_model.")
            ]
            if not match:
                assert name == "encoder.embed_tokens.weight" and not published  # tied
                match = [state["shared.weight"]]
            assert torch.equal(match[0], tensor), name


def test_nothing_is_printed_and_the_users_settings_stay(four_encoders, capfd):
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_info()
    transformers.logging.enable_progress_bar()
    try:
        TextConditioner.from_pretrained(four_encoders)
        assert capfd.readouterr() == ("", "")
        assert transformers.logging.get_verbosity() == transformers.logging.INFO
        assert transformers.utils.logging.is_progress_bar_enabled()
        transformers.logging.disable_progress_bar()
        TextConditioner.from_pretrained(four_encoders)
        assert not transformers.utils.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.set_verbosity(before)
        transformers.logging.enable_progress_bar()


# Other encoder classes

SMALL = {
    "hidden_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 900,
    "max_position_embeddings": 90,
}


def t5():
    config = T5Config(
        vocab_size=900, d_model=20, d_kv=6, d_ff=24, num_layers=1, num_heads=2, tie_word_embeddings=False
    )
    return T5ForConditionalGeneration(config)


def clap():
    config = ClapConfig(
        text_config={**SMALL, "pad_token_id": 1},
        audio_config={
            "patch_embeds_hidden_size": 8,
            "hidden_size": 16,
            "depths": [1],
            "num_attention_heads": [2],
            "num_hidden_layers": 1,
            "window_size": 4,
            "num_mel_bins": 32,
            "spec_size": 32,
        },
    )
    return ClapModel(config)


def clip():
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**SMALL, "bos_token_id": 1, "eos_token_id": 2}
    return CLIPModel(CLIPConfig(text_config=text, vision_config={**vision, "image_size": 32, "patch_size": 16}))


OTHERS = {
    "t5 with its decoder": (t5, lambda m, ids: m.encoder(ids), None),
    "full clap": (clap, lambda m, ids: m.text_model(ids), 88),
    "full clip": (clip, lambda m, ids: m.text_model(ids), 90),
    "bert with a head": (lambda: BertForMaskedLM(BertConfig(**SMALL)), lambda m, ids: m.bert(ids), 90),
    "roberta": (lambda: RobertaModel(RobertaConfig(**SMALL)), lambda m, ids: m(ids), 88),
    "distilbert": (
        lambda: DistilBertModel(
            DistilBertConfig(
                dim=20, n_layers=1, n_heads=2, hidden_dim=24, vocab_size=900, max_position_embeddings=90
            )
        ),
        lambda m, ids: m(ids),
        90,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@torch.no_grad()
def test_other_encoder_classes(tmp_path, name, suffix):
    make, run, limit = OTHERS[name]
    torch.manual_seed(1)
    model = make().eval()
    model.save_pretrained(tmp_path)
    if suffix == "bin":
        state = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    encoder = load_encoder(tmp_path)
    ids = torch.tensor([[5, 7, 300, 9]])
    assert torch.allclose(encoder(input_ids=ids).last_hidden_state, run(model, ids).last_hidden_state, atol=1e-6)
    assert encoder.config.hidden_size == 20
    assert position_limit(encoder) == limit


def test_a_bert_type_checkpoint_end_to_end(tmp_path):
    folder = write_adapter_checkpoint(tmp_path, encoders=("bert", "bert"))
    place = folder / "text_encoder_1"
    model = DistilBertModel(DistilBertConfig(dim=36, n_layers=1, n_heads=2, hidden_dim=8, vocab_size=400))
    (place / "pytorch_model.bin").unlink()
    model.save_pretrained(place)
    conditioner = TextConditioner.from_pretrained(folder)
    with torch.no_grad():
        assert conditioner.encode(["a dog barks"]).shape == (1, 154, 24)
    assert conditioner.token_table("a dog barks").find("barks").tolist() == [3, 4, 80, 81]


def test_old_norm_names_and_sharded_files(tmp_path):
    folder = write_adapter_checkpoint(tmp_path, encoders=("bert",)) / "text_encoder_0"
    wanted = load_encoder(folder).state_dict()
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
    }
    names = list(old)
    shards = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for shard, part in shards.items():
        torch.save({name: old[name] for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    loaded = load_encoder(folder).state_dict()
    assert all(torch.equal(wanted[name], loaded[name]) for name in wanted)
    (folder / "pytorch_model-2.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-2\.bin is missing"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["CLIPTokenizerFast", "CLIPTokenizer"])
def test_tokenizer_class_names(tmp_path, name):
    folder = write_adapter_checkpoint(tmp_path) / "text_encoder_0"
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = name
    path.write_text(json.dumps(config))
    assert load_tokenizer(folder)("A dog").input_ids == [682, 320, 530, 683]


def test_an_unknown_tokenizer_class_is_refused(tmp_path):
    folder = write_adapter_checkpoint(tmp_path) / "text_encoder_0"
    edit(folder / "tokenizer_config.json", lambda c: c.pop("tokenizer_class"))
    with pytest.raises(CheckpointError, match="no tokenizer that transformers can read"):
        load_tokenizer(folder)


# What is refused


class Malice:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


PICKLES = ["text_encoder_0/pytorch_model.bin", "condition_adapter_0/condition_adapter.pt"]


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path, name, legacy, text_parts):
    folder = text_parts(tmp_path / "c")
    mark = tmp_path / "ran"
    if legacy:
        (folder / name).write_bytes(pickle.dumps({"proj.weight": Malice(mark)}))
    else:
        torch.save({"proj.weight": Malice(mark)}, folder / name)
    with pytest.raises(CheckpointError, match="rejected, and no part of it was run"):
        TextConditioner.from_pretrained(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("condition_config.json", "a list with one object per text encoder"),
        ("text_encoder_0", "the folder"),
        ("condition_adapter_0", "the folder"),
        ("text_encoder_0/config.json", "a text encoder's configuration"),
        ("text_encoder_0/pytorch_model.bin", r"model\.safetensors or .*the weights of CLIPTextModel"),
        ("text_encoder_0/vocab.json", r"tokenizer\.json, or vocab\.json with merges\.txt"),
        ("text_encoder_0/merges.txt", r"tokenizer\.json, or vocab\.json with merges\.txt"),
        ("condition_adapter_0/config.json", "condition_dim"),
        ("condition_adapter_0/condition_adapter.pt", r"condition_adapter\.safetensors or .*proj"),
    ],
)
def test_missing_files_are_named(tmp_path, name, expected, text_parts):
    folder = text_parts(tmp_path)
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=expected) as caught:
        TextConditioner.from_pretrained(folder)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "condition_config.json",
        "text_encoder_0/config.json",
        "text_encoder_0/pytorch_model.bin",
        "text_encoder_0/vocab.json",
        "text_encoder_0/tokenizer_config.json",
        "condition_adapter_0/config.json",
        "condition_adapter_0/condition_adapter.pt",
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x80\x02garbage", b"null"])
def test_malformed_files_are_named(tmp_path, name, content, text_parts):
    folder = text_parts(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        TextConditioner.from_pretrained(folder)
    assert (folder / name).name in str(caught.value)


@pytest.mark.parametrize(
    "name", ["text_encoder_0/model.safetensors", "condition_adapter_0/condition_adapter.safetensors"]
)
def test_malformed_safetensors_are_named(tmp_path, name, text_parts):
    folder = text_parts(tmp_path, published=False)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"safetensors is damaged"):
        TextConditioner.from_pretrained(folder)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("condition_dim", 33, "gives hidden states 32 wide"),
        ("cross_attention_dim", 25, "maps 32 to 24 channels"),
        ("condition_max_length", 0, "condition_max_length is 0; expected a positive integer"),
        ("condition_max_length", True, "condition_max_length is True"),
        ("condition_max_length", "77", "condition_max_length is '77'"),
        ("text_encoder_name", "../elsewhere", "the name of a folder"),
        ("text_encoder_name", "..", "the name of a folder"),
        ("condition_adapter_name", "", "the name of a folder"),
        ("condition_adapter_name", None, "condition_adapter_name is None"),
    ],
)
def test_a_wrong_condition_config_is_refused(tmp_path, key, value, message, text_parts):
    folder = text_parts(tmp_path)
    edit(folder / "condition_config.json", lambda c: c[0].update({key: value}))
    with pytest.raises(CheckpointError, match=message):
        TextConditioner.from_pretrained(folder)


def test_a_condition_config_without_a_field_is_refused(tmp_path, text_parts):
    folder = text_parts(tmp_path)
    edit(folder / "condition_config.json", lambda c: c[0].pop("condition_dim"))
    with pytest.raises(CheckpointError, match=r"entry 0: condition_dim is missing; expected a positive integer"):
        TextConditioner.from_pretrained(folder)


def test_an_adapter_whose_weights_are_of_another_size_is_refused(tmp_path, text_parts):
    folder = text_parts(tmp_path)
    edit(folder / "condition_adapter_0/config.json", lambda c: c.update(cross_attention_dim=48))
    with pytest.raises(CheckpointError, match="two different checkpoints"):
        TextConditioner.from_pretrained(folder)


def test_adapters_of_different_widths_are_refused(tmp_path, text_parts):
    folder = text_parts(tmp_path, encoders=("clip", "t5"))
    Adapter(ENCODER_WIDTHS["t5"], 48).save_pretrained(folder / "condition_adapter_1")
    edit(folder / "condition_config.json", lambda c: c[1].update(cross_attention_dim=48))
    with pytest.raises(CheckpointError, match="same cross_attention_dim"):
        TextConditioner.from_pretrained(folder)


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("Word2VecModel", "clip_text_model"),
        ("CLIPVisionModel", "clip_vision_model"),
        ("GPT2Model", "gpt2"),
        ("BartModel", "bart"),
        ("MyBert", "bert"),
        ("CLIPTextModel", "bert"),
        ("T5EncoderModel", "clip_text_model"),
    ],
)
def test_unknown_encoder_classes_are_named_with_the_known_ones(tmp_path, architecture, model_type, text_parts):
    folder = text_parts(tmp_path)
    path = folder / "text_encoder_0/config.json"
    path.write_text(json.dumps({"architectures": [architecture], "model_type": model_type}))
    with pytest.raises(CheckpointError, match=rf"{architecture}.*known: CLIPTextModel.*ClapTextModel.*BertModel"):
        TextConditioner.from_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": None},
        {"architectures": []},
        {"architectures": "CLIPTextModel"},
        {"model_type": "no-such-type"},
        {"hidden_size": "wide"},
        {"num_attention_heads": 5},
        {"hidden_size": 64},
    ],
)
def test_wrong_encoder_configurations_are_refused(tmp_path, change, text_parts):
    folder = text_parts(tmp_path)
    edit(folder / "text_encoder_0/config.json", lambda c: c.update(change))
    with pytest.raises(CheckpointError, match=r"text_encoder_0"):
        TextConditioner.from_pretrained(folder)


def test_weights_of_another_model_or_incomplete_ones_are_refused(tmp_path, text_parts):
    folder = text_parts(tmp_path, published=False)
    path = folder / "text_encoder_0/model.safetensors"
    state = load_file(path)
    gone = next(name for name in state if "fc1" in name)
    save_file({k: v for k, v in state.items() if k != gone}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 1 tensors of CLIPTextModel, such as .*fc1"):
        TextConditioner.from_pretrained(folder)
    save_file({"foo": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="text_encoder_0"):
        TextConditioner.from_pretrained(folder)


def test_a_pooler_may_be_missing(tmp_path, text_parts):
    folder = text_parts(tmp_path, encoders=("bert",)) / "text_encoder_0"
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in state.items() if "pooler" not in k}, path)
    load_encoder(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path, text_parts):
    folder = text_parts(tmp_path)
    edit(folder / "text_encoder_0/vocab.json", lambda c: c.update(zebra=5000))
    with pytest.raises(CheckpointError, match=r"ids up to 5000, but its encoder knows 684"):
        TextConditioner.from_pretrained(folder)


def test_remote_code_is_never_run(tmp_path, text_parts):
    folder = text_parts(tmp_path)
    mark = tmp_path / "ran"
    (folder / "text_encoder_0/code.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\nclass M: pass\n")
    edit(
        folder / "text_encoder_0/config.json",
        lambda c: c.update(model_type="mine", auto_map={"AutoConfig": "code.C", "AutoModel": "code.M"}),
    )
    with pytest.raises(CheckpointError):
        TextConditioner.from_pretrained(folder)
    assert not mark.exists()


def test_an_empty_folder_or_none(tmp_path):
    with pytest.raises(CheckpointError, match=r"condition_config\.json is missing"):
        TextConditioner.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"condition_config\.json is missing"):
        TextConditioner.from_pretrained(tmp_path / "nowhere")


def test_parts_must_be_as_many_as_entries(conditioner):
    with pytest.raises(CheckpointError, match="4 entries, 3 encoders"):
        TextConditioner(
            conditioner.specs, list(conditioner.encoders)[:3], conditioner.tokenizers, list(conditioner.adapters)
        )
