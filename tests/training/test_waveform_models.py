"""A codec of waveforms, and a language model of its codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training.training_toys import config, stepped
from transformers import EncodecModel, MusicgenForConditionalGeneration

import attnviz
from attnviz.attribution.code_explanation import delayed
from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.conditioning.encoders import load_encoder, load_tokenizer
from attnviz.training.codec import CodecPart, encoded
from attnviz.training.codes import cached_codes, read_codec
from attnviz.training.musicgen import MusicgenPart, delayed_labels

CPU = torch.device("cpu")
ENCODEC = {
    "num_filters": 4, "hidden_size": 8, "codebook_size": 16, "num_lstm_layers": 1, "use_causal_conv": False,
}  # fmt: skip
DECODER = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "dropout": 0.0,
    "max_position_embeddings": 520,
}  # fmt: skip


def codec_part(**changes):
    torch.manual_seed(0)
    return CodecPart(config("codec", {"codebooks": 3, "encodec": ENCODEC}, **changes))


@pytest.fixture(scope="module")
def codec_folder(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    part = codec_part()
    stepped(part, scenes)
    part.export(folder)
    return folder / "codec"


def musicgen_part(codec_folder, exported, scenes, folder, **changes):
    torch.manual_seed(0)
    model = {"codec": str(codec_folder), "encoder": str(exported / "t5" / "text_encoder_0"), "decoder": DECODER}
    return MusicgenPart(config("musicgen", model | changes.pop("model", {}), **changes), scenes, folder, CPU)


# ---- codec -------------------------------------------------------------------------------------------------


def test_a_codec_learns(scenes):
    losses = stepped(codec_part(), scenes, steps=12, rate=3e-3)
    assert losses[-1] < 0.9 * losses[0]


def test_an_exported_codec_codes_as_the_quantiser_that_trained_it(scenes, tmp_path):
    part = codec_part()
    stepped(part, scenes, steps=2)
    part.export(tmp_path)
    codec = read_codec(str(tmp_path / "codec"))
    wave = torch.from_numpy(scenes.audio[:2].astype(np.float32) / 32768)
    codes = encoded(codec, wave)
    assert codes.shape == (2, 3, 512)  # 50 frames a second
    with torch.no_grad():
        embedded = part.shipped.eval().encoder(wave[:, None])
        quantised, own, _ = part.quantiser.eval()(embedded.transpose(1, 2))
        made = part.shipped.decoder(quantised.transpose(1, 2))
    np.testing.assert_array_equal(codes, own.transpose(1, 2))
    torch.testing.assert_close(codec.decode(codes[None], [None])[0], made, rtol=1e-4, atol=1e-5)
    assert codec.config.target_bandwidths == [3 * 4 * 50 / 1000]


def test_samples_and_validation_of_a_codec(scenes, tmp_path):
    part = codec_part()
    stepped(part, scenes)
    assert part.validate(scenes, CPU)["mel_distance"] > 0
    part.sample(scenes, tmp_path, CPU)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"0-original.wav", "0-coded.wav", "2-coded.wav", "spectrograms.png"} <= names


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        ({"encodec": {"filters": 4}}, {}, "model.encodec.filters"),
        ({"encodec": {"sampling_rate": 24_000}}, {}, "model.encodec.sampling_rate"),
        ({"encodec": {**ENCODEC, "codebook_dim": 4}}, {}, "must have the 8 values of hidden_size"),
        ({"encodec": {**ENCODEC, "norm_type": "batch"}}, {}, "no codec has these settings"),
        ({"codebooks": 0, "encodec": ENCODEC}, {}, "model.codebooks is 0"),
        ({"encodec": ENCODEC}, {"columns": 65}, "10400 samples; it must be a whole number of frames of 320"),
        ({"encodec": ENCODEC}, {"codebook_decay": 1.0}, "objective.codebook_decay is 1.0"),
    ],
)
def test_settings_of_a_codec_that_are_refused(model, objective, message):
    with pytest.raises(TrainingError, match=message):
        CodecPart(config("codec", model, objective=objective))


def test_codebooks_need_their_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vector_quantize_pytorch", None)
    with pytest.raises(TrainingError, match="pip install vector-quantize-pytorch"):
        codec_part()


# ---- codes -------------------------------------------------------------------------------------------------


def test_codes_are_cached_by_codec(scenes, codec_folder, tmp_path):
    codec = read_codec(str(codec_folder))
    codes = cached_codes(codec, scenes, tmp_path, CPU)
    assert codes.shape == (3, 3, 512)
    assert codes.min() >= 0
    assert codes.max() < ENCODEC["codebook_size"]
    with torch.no_grad():
        codec.quantizer.layers[0].codebook.embed.add_(1)
    cached_codes(codec, scenes, tmp_path, CPU)
    assert len([*tmp_path.glob("codes-*.npy")]) == 2


def test_codecs_that_are_refused(codec_folder, tmp_path):
    with pytest.raises(CheckpointError):
        read_codec(str(tmp_path / "none"))
    codec = EncodecModel.from_pretrained(codec_folder)
    codec.config.sampling_rate = 24_000
    codec.save_pretrained(tmp_path / "other")
    with pytest.raises(TrainingError, match="1 channels at 24000 Hz.* one channel at 16000 Hz"):
        read_codec(str(tmp_path / "other"))


# ---- language model ----------------------------------------------------------------------------------------


def test_labels_vs_the_sequence_that_transformers_generates(scenes, codec_folder, exported, tmp_path):
    """Shifted to the right, the labels are the decoder's inputs as transformers delays them."""
    part = musicgen_part(codec_folder, exported, scenes, tmp_path)
    model, codes = part.shipped, torch.randint(0, 16, (3, 21), generator=torch.Generator().manual_seed(0))
    pad = model.config.decoder.pad_token_id
    labels = delayed_labels(codes[None], pad)
    inputs = torch.cat([torch.full((3, 1), pad), labels[0].T[:, :-1]], dim=1)
    np.testing.assert_array_equal(inputs, delayed(model.decoder, codes, 3, model.generation_config))
    for book in range(3):
        np.testing.assert_array_equal(labels[0, book : book + 21, book], codes[book])
    assert (labels == pad).sum() == 3 * 2


def test_only_decoder_and_projection_learn(scenes, codec_folder, exported, tmp_path):
    part = musicgen_part(codec_folder, exported, scenes, tmp_path)
    kept = (part.shipped.audio_encoder, part.shipped.text_encoder)
    before = [{name: tensor.clone() for name, tensor in module.state_dict().items()} for module in kept]
    losses = stepped(part, scenes, steps=8, rate=1e-2)
    assert losses[0] == pytest.approx(np.log(16), rel=0.1)  # of 16 codes, none is known yet
    assert losses[-1] < 0.9 * losses[0]
    for module, old in zip(kept, before, strict=True):
        torch.testing.assert_close(dict(module.state_dict()), old, rtol=0, atol=0)


def test_other_encoders_and_codecs_are_told_apart(scenes, codec_folder, exported, tmp_path):
    """A training resumes with the codec and the text encoder that it was begun with."""
    parts = [musicgen_part(codec_folder, exported, scenes, tmp_path) for _ in range(2)]
    assert parts[0].frozen == parts[1].frozen
    bert = {"encoder": str(exported / "bert" / "text_encoder_0")}
    assert musicgen_part(codec_folder, exported, scenes, tmp_path, model=bert).frozen != parts[0].frozen
    encoder = load_encoder(exported / "t5" / "text_encoder_0")
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-3)
    encoder.save_pretrained(tmp_path / "again")
    load_tokenizer(exported / "t5" / "text_encoder_0").save_pretrained(tmp_path / "again")
    again = musicgen_part(codec_folder, exported, scenes, tmp_path, model={"encoder": str(tmp_path / "again")})
    assert again.frozen != parts[0].frozen


def test_without_its_caption_a_clip_has_the_loss_of_guidance(scenes, codec_folder, exported, tmp_path):
    """What is left out in training is what transformers leaves out in generation: hidden states of zero."""
    part = musicgen_part(codec_folder, exported, scenes, tmp_path)
    model = part.shipped.eval()
    batch = part.batch(scenes, np.array([1]), np.random.default_rng(0))
    nothing = torch.zeros_like(batch["attention_mask"])
    with torch.no_grad():
        found = part.players[0].loss(batch["codes"], batch["input_ids"], nothing)
        other = part.players[0].loss(batch["codes"], batch["input_ids"].flip(1), nothing)
        inputs = delayed(model.decoder, batch["codes"][0], 3, model.generation_config)
        logits = model.decoder(
            input_ids=inputs, encoder_hidden_states=torch.zeros(1, nothing.shape[1], 16),
            encoder_attention_mask=nothing,
        ).logits  # fmt: skip
    likely = torch.log_softmax(logits, dim=-1)
    expected = [
        -float(likely[book, book : book + 512].gather(1, batch["codes"][0, book][:, None]).mean())
        for book in range(3)
    ]
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(other) == float(found)


def test_an_exported_model_is_traced(scenes, codec_folder, exported, tmp_path):
    part = musicgen_part(codec_folder, exported, scenes, tmp_path / "cache")
    part.export(tmp_path / "model")
    MusicgenForConditionalGeneration.from_pretrained(tmp_path / "model")
    model, processor = attnviz.load(str(tmp_path / "model"))
    assert model.generation_config.max_length == 512 + 3
    wave = (scenes.audio[0] / 32768).astype(np.float32)
    maps = attnviz.explain(model, wave, "a dog barks", processor=processor, sampling_rate=16_000)
    assert maps.words == ["a", "dog", "barks"]
    assert maps.activation("dog").shape == (512,)


def test_samples_and_validation(scenes, codec_folder, exported, tmp_path):
    part = musicgen_part(codec_folder, exported, scenes, tmp_path / "cache")
    part.shipped.eval()
    assert part.validate(scenes, CPU)["cross_entropy"] == pytest.approx(np.log(16), rel=0.1)
    (tmp_path / "out").mkdir()
    part.sample(scenes, tmp_path / "out", CPU)
    assert (tmp_path / "out" / "a-rooster-crows-then-a-baby-cries.wav").exists()


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        ({"decoder": {**DECODER, "layers": 2}}, {}, "model.decoder.layers"),
        ({"decoder": {**DECODER, "num_codebooks": 2}}, {}, "model.decoder.num_codebooks"),
        ({"decoder": {**DECODER, "num_attention_heads": 3}}, {}, "no decoder has these settings"),
        ({"decoder": {**DECODER, "max_position_embeddings": 512}}, {}, "scenes of 512 frames need 515"),
        ({}, {"condition_dropout": 1.0}, "condition_dropout is 1.0"),
    ],
)
def test_settings_that_are_refused(model, objective, message, scenes, codec_folder, exported, tmp_path):
    with pytest.raises(TrainingError, match=message):
        musicgen_part(codec_folder, exported, scenes, tmp_path, model=model, objective=objective)
