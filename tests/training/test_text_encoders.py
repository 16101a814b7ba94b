"""Pretraining of text encoders: objectives, tokenizers, what is exported and what a denoiser takes."""

from __future__ import annotations

import gzip
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training.text_encoder_toys import CPU, KINDS, SOUND, text_config

from attnviz.errors import TrainingError
from attnviz.models.conditioning import TextConditioner
from attnviz.testing.corpus import CAPTIONS
from attnviz.training import loop
from attnviz.training.captions import CaptionFiles
from attnviz.training.config import CONFIGS, read_config
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


class Stopped(Exception):  # noqa: N818  # not an error
    """Ends a training as an interrupt would."""


@pytest.fixture
def train(monkeypatch, banded_scenes, tmp_path):
    monkeypatch.setattr(loop, "open_scenes", lambda *_: (banded_scenes, banded_scenes))

    def run(settings, name="run", **options):
        return loop.train(settings, esc10=tmp_path, out=tmp_path / name, cache=tmp_path / "cache", **options)

    return run


# ---- objectives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_info_nce_of_orthogonal_pairs(scale):
    """Of n orthogonal pairs: log(1 + (n - 1) exp(-scale)); of n equal ones: log n."""
    pairs = scale * torch.eye(6)
    assert float(info_nce(pairs, pairs.T)) == pytest.approx(math.log1p(5 * math.exp(-scale)), rel=1e-3)
    same = torch.full((6, 6), scale)
    assert float(info_nce(same, same.T)) == pytest.approx(math.log(6), rel=1e-6)


def test_info_nce_is_the_mean_of_both_directions():
    """One text is found by no sound, but each text finds its sound: only one direction errs."""
    of_text, of_sound = 50 * torch.eye(3), 50 * torch.eye(3)[[1, 0, 2]]
    assert float(info_nce(of_text, of_text)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce(of_text, of_sound)) == pytest.approx(50 * 2 / 3 / 2, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 70),
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
    assert len(removed) == min(max(round(count * rate), 1), max(count - 1, 1))
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
    several = [retrieval_scores(vectors[rng.permutation(400)] @ vectors.T) for _ in range(30)]
    wrong = {name: np.mean([one[name] for one in several]) for name in right}
    for way in ("text_to_sound", "sound_to_text"):
        assert (right[f"{way}_recall_at_1"], right[f"{way}_median_rank"]) == (1, 1)
        assert wrong[f"{way}_recall_at_10"] == pytest.approx(10 / 400, abs=0.005)
        assert wrong[f"{way}_median_rank"] == pytest.approx(200.5, abs=5)
    tied = retrieval_scores(np.zeros((9, 9)))
    assert tied["text_to_sound_median_rank"] == 5
    for wrong in (np.zeros((2, 3)), np.zeros((0, 0)), np.full((2, 2), np.nan)):
        with pytest.raises(TrainingError, match="similarities"):
            retrieval_scores(wrong)


@pytest.mark.parametrize("kind", ["clip", pytest.param("clap", marks=pytest.mark.slow)])
def test_pairs_are_learnt_and_shuffled_ones_are_not(kind, banded_scenes, tmp_path):
    """Bands and their names: found by training, and lost when the pictures are moved to other names."""
    torch.manual_seed(0)
    part = TextPart(text_config(kind), banded_scenes, tmp_path)
    count = 6
    batch = part.batch(banded_scenes, np.arange(count), np.random.default_rng(0))
    player = part.players[0].train()
    optimizer = torch.optim.AdamW(player.trained(), lr=2e-3)
    for _ in range(80 if kind == "clip" else 200):
        loss, _ = player(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    part.shipped.eval()
    texts = part.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    table = similarities_of(part.shipped, part.tokenizer, kind, texts, banded_scenes.images[:count], CPU)
    right, shuffled = retrieval_scores(table), retrieval_scores(np.roll(table, 3, axis=1))
    assert right["text_to_sound_recall_at_1"] >= 5 / 6
    assert right["sound_to_text_median_rank"] == 1
    assert shuffled["text_to_sound_recall_at_1"] <= 1 / 6


def test_the_temperature_does_not_fall_without_limit(banded_scenes, tmp_path):
    part = TextPart(text_config("clip"), banded_scenes, tmp_path)
    with torch.no_grad():
        part.shipped.logit_scale.fill_(9.0)
    part.players[0](part.batch(banded_scenes, np.array([0, 1]), np.random.default_rng(0)))
    assert part.shipped.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


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


def test_clip_sees_the_whole_picture_in_patches_of_its_shape(tmp_path):
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
        "tokens": {"0": ["a", "man", "speaks"]}, "soundtag": {"0": "man"}, "start_word": {"0": 1},
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


def test_text_objectives_learn_from_files(banded_scenes, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"a {word} hums" for word in ("fan", "bee", "motor", "tube", "fly")))
    objective = {"captions": [str(tmp_path / "a.txt")], "file_captions": 1.0}
    part = TextPart(text_config("bert", objective=objective), banded_scenes, tmp_path)
    assert {part._text(banded_scenes, 0, np.random.default_rng(i)) for i in range(40)} == set(part.files.training)
    other = TextPart(
        text_config("clip", objective=objective), banded_scenes, tmp_path
    )  # which has no sound of them
    assert "hums" not in other._text(banded_scenes, 0, np.random.default_rng(0))


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
def test_settings_that_contradict_each_other(kind, changes, told, banded_scenes, tmp_path):
    with pytest.raises(TrainingError, match=told):
        TextPart(text_config(kind, **changes), banded_scenes, tmp_path)


def test_an_unknown_objective_and_scenes_too_long_for_clap(banded_scenes, tmp_path):
    with pytest.raises(TrainingError, match="objective.kind is 'elmo'; it must be one of 'clip'"):
        TextPart(text_config("clip", objective={"kind": "elmo"}), banded_scenes, tmp_path)
    tokenizer = fit_tokenizer("clap", CAPTIONS, 600, tmp_path)
    with pytest.raises(TrainingError, match="2048 frames long, but ClapAudioModel takes at most 1024"):
        make_pretraining_model("clap", TextModel(vocabulary=600), tokenizer, 2048)


# ---- training and resuming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_training_resumes_exactly_and_reports_its_quality(kind, train, tmp_path, monkeypatch):
    model = train(text_config(kind), "whole")
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
            train(text_config(kind), "again")
    again = train(text_config(kind), "again", resume=True)
    for folder in ("text_encoder_0", "condition_adapter_0", "pretraining"):
        before, after = (next((place / folder).glob("*.safetensors")).read_bytes() for place in (model, again))
        assert before == after


def test_other_captions_are_refused_when_resuming(train, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"caption {i}" for i in range(20)))
    settings = text_config("bert", objective={"captions": [str(path)]})
    train(settings)
    path.write_text("\n".join(f"caption {i}" for i in range(30)))
    (tmp_path / "run" / "model").rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match="frozen_parts was"):
        train(settings, resume=True)
