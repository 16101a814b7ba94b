from __future__ import annotations

import json

import librosa
import numpy as np
import pytest
import soundfile
import torch
import transformers
from evaluation.evaluation_models import RATE, tone, write_clap, write_clips, write_pe_audio_frame
from listener.small_listeners import small_listener

from attnviz.errors import AttnVizError, CheckpointError, EvaluationError, TruncationWarning
from attnviz.evaluation import (
    Clip,
    Embedder,
    EmbeddingCache,
    embed_clips,
    listener_embedder,
    load_embedder,
    pair_clips,
    read_clips,
)
from attnviz.listener.listening import listen, mean_features


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    return write_clap(tmp_path_factory.mktemp("clap") / "model")


@pytest.fixture(scope="module")
def clap(clap_folder):
    return load_embedder(clap_folder)


# The listener


def test_the_listener_embeds_by_its_features_and_peaks():
    listener = small_listener()
    embedder = listener_embedder(listener)
    audio = tone(3, seconds=2.0)
    found = embedder(audio, RATE)
    peaks = listen(audio, model=listener).peaks.to_numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-found["logits"])), peaks.clip(1e-6, 1 - 1e-6), rtol=1e-5)
    assert found["embedding"].shape == (2 * listener.config.hidden,)
    assert embedder.classes == listener.config.classes
    assert "do not compare" in embedder.note


def test_features_are_what_the_last_layer_classifies():
    listener, images = small_listener(), torch.rand(2, 256, 48)
    with torch.inference_mode():
        logits = listener.out(listener.features(images)).transpose(1, 2)
        assert torch.equal(logits, listener(images))


@pytest.mark.parametrize("seconds", [1.0, 1.015, 9.98])
def test_mean_features_are_of_the_frames_that_are_heard(seconds):
    """The last layer is linear: the mean feature gives the mean logit of the frames that `listen` returns."""
    listener, audio = small_listener(), tone(1, seconds=seconds, level=0.9)
    heard = listen(audio, model=listener).probabilities.to_numpy().astype(float)
    assert heard.min() > 0  # nothing is inaudible
    with torch.inference_mode():
        mean = listener.out(torch.from_numpy(mean_features(audio, listener))).numpy()
    np.testing.assert_allclose(mean, np.log(heard / (1 - heard)).mean(axis=1), rtol=1e-4, atol=1e-5)


def test_other_rates_are_resampled():
    embedder = listener_embedder(small_listener())
    low = tone(4, seconds=1.0)
    high = librosa.resample(low, orig_sr=RATE, target_sr=44_100)
    at_16, at_44 = (embedder(audio, rate)["embedding"] for audio, rate in ((low, RATE), (high, 44_100)))
    assert np.abs(at_16 - at_44).max() < 0.05 * np.abs(at_16).max()


# CLAP and PE-A-Frame


def test_clap_is_what_its_authors_compute(clap, clap_folder):
    """The steps of Auffusion's authors, for a clip of 10 s."""
    audio = tone(5, seconds=10.0, rate=48_000)[:480_000]
    model = transformers.ClapModel.from_pretrained(clap_folder).eval()
    processor = transformers.ClapProcessor(
        transformers.ClapFeatureExtractor.from_pretrained(clap_folder),
        transformers.AutoTokenizer.from_pretrained(clap_folder),
    )
    inputs = processor(
        text=["a dog barks"], audio=librosa.util.normalize(audio), sampling_rate=48_000, return_tensors="pt"
    )
    with torch.inference_mode():
        out = model(**inputs)
    np.testing.assert_allclose(clap(audio, 48_000)["embedding"], out.audio_embeds[0], atol=1e-6)
    np.testing.assert_allclose(clap.text(["a dog barks"]), out.text_embeds, atol=1e-6)
    assert clap.sampling_rate == 48_000


def test_clap_of_a_long_clip_is_the_mean_over_windows(clap, clap_folder):
    audio = tone(6, seconds=23.0, rate=48_000)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found, again = clap(audio, 48_000)["embedding"], clap(audio, 48_000)["embedding"]
    assert np.array_equal(found, again)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    model = transformers.ClapModel.from_pretrained(clap_folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(clap_folder)
    scaled = audio / np.abs(audio).max()
    windows = [scaled[:480_000], scaled[480_000:960_000], scaled[-480_000:]]
    inputs = extractor(windows, sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        parts = model.get_audio_features(**inputs).pooler_output
    np.testing.assert_allclose(found, parts.mean(dim=0), atol=1e-6)
    np.testing.assert_allclose(clap(audio * 0.01, 48_000)["embedding"], found, atol=1e-5)


def test_a_long_caption_is_cut_with_a_warning(clap):
    with pytest.warns(TruncationWarning, match="cut after 38 tokens"):
        assert np.isfinite(clap.text(["a dog barks and " * 30])).all()


def test_captions_do_not_depend_on_each_other(clap):
    together = clap.text(["rain", "a dog barks, then rain falls"])
    np.testing.assert_allclose(clap.text(["rain"])[0], together[0], atol=1e-6)


def test_pe_audio_frame_is_the_mean_over_frames(tmp_path):
    folder = write_pe_audio_frame(tmp_path / "pe")
    embedder, audio = load_embedder(folder), tone(7, seconds=0.6, rate=48_000)
    model = transformers.PeAudioFrameLevelModel.from_pretrained(folder).eval()
    inputs = transformers.PeAudioFeatureExtractor()(audio, sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        frames = model.get_audio_embeds(inputs["input_values"], inputs["padding_mask"])
    found = embedder(audio, 48_000)["embedding"]
    np.testing.assert_allclose(found, frames[0].mean(dim=0), atol=1e-5)
    assert embedder.name == "pe-a-frame"


@pytest.mark.parametrize("name", ["panns", "VGGish", "Cnn14_mAP=0.431.pth", "model.ckpt"])
def test_what_no_class_reads_is_refused_by_name(name):
    with pytest.raises(EvaluationError, match=r"cannot be loaded.*callable.*arrays of embeddings"):
        load_embedder(name)


def test_other_models_and_damaged_ones_are_refused(tmp_path, clap_folder):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EvaluationError, match="'bert'; embedders are of the types"):
        load_embedder(tmp_path)
    with pytest.raises(CheckpointError, match="config.json is missing"):
        (tmp_path / "empty").mkdir()
        load_embedder(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no folder"):
        load_embedder("nosuch")
    (tmp_path / "config.json").write_bytes((clap_folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="cannot be read by transformers"):
        load_embedder(tmp_path)


def test_missing_weights_are_not_drawn_at_random(tmp_path, clap_folder):
    model = transformers.ClapModel.from_pretrained(clap_folder)
    state = {name: tensor for name, tensor in model.state_dict().items() if "audio_projection" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((clap_folder / name).read_bytes())
    with pytest.raises(CheckpointError, match="lack 4 parameters of ClapModel, such as audio_projection"):
        load_embedder(tmp_path)


# Callables


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda audio, rate: np.full(3, np.nan), "returned NaN"),
        (lambda audio, rate: np.zeros((1, 3)), r"shape \(1, 3\).*for one clip"),
        (lambda audio, rate: {"features": np.zeros(3)}, r"the outputs \['features'\]"),
        (lambda audio, rate: "dog", "expected an array of numbers"),
        (lambda audio, rate: {}, "the outputs"),
    ],
)
def test_what_a_callable_returns_is_checked(function, message, tmp_path):
    clips = read_clips(write_clips(tmp_path / "a", range(2)))
    with pytest.raises(EvaluationError, match=message) as caught:
        embed_clips(clips, function)
    assert "000.wav" in str(caught.value)


def test_embeddings_of_different_lengths_name_the_clip(tmp_path):
    clips = read_clips(write_clips(tmp_path / "a", range(3)))
    with pytest.raises(EvaluationError, match=r"001.wav.*shape \(8001,\), but \(8000,\) for .*000.wav"):
        embed_clips(clips, lambda audio, rate: audio)
    with pytest.raises(EvaluationError, match="expected an Embedder"):
        embed_clips(clips, "dog")


def test_an_embedder_gets_its_sampling_rate(tmp_path):
    clips = read_clips(write_clips(tmp_path / "a", range(1)))
    seen = []

    def embed(audio, rate):
        seen.append((len(audio), rate))
        return np.ones(2)

    embed_clips(clips, Embedder("mine", embed, 8000))
    embed_clips(clips, embed)
    assert seen == [(4000, 8000), (8000, 16_000)]


# The cache


class Counting:
    """An embedder that counts its calls."""

    def __init__(self, digest="1"):
        self.calls = 0
        self.embedder = Embedder("counting", self.embed, digest=digest)

    def embed(self, audio, rate):
        self.calls += 1
        return {"embedding": np.array([audio.mean(), audio.std()]), "logits": np.zeros(2)}


def test_embeddings_are_found_by_content(tmp_path):
    folder, counting = write_clips(tmp_path / "a", range(3)), Counting()
    first = embed_clips(read_clips(folder), counting.embedder, cache=tmp_path / "cache")
    assert counting.calls == 3
    (folder / "000.wav").rename(folder / "renamed.wav")
    again = embed_clips(read_clips(folder), counting.embedder, cache=EmbeddingCache(tmp_path / "cache"))
    assert counting.calls == 3
    assert np.array_equal(again.embeddings[[2, 0, 1]], first.embeddings)
    soundfile.write(folder / "001.wav", tone(9), RATE)
    changed = embed_clips(read_clips(folder), counting.embedder, cache=tmp_path / "cache")
    assert counting.calls == 4
    assert not np.array_equal(changed.embeddings, again.embeddings)
    embed_clips(read_clips(folder), Counting("2").embedder, cache=tmp_path / "cache")
    other = Counting("2")
    embed_clips(read_clips(folder), other.embedder, cache=tmp_path / "cache")
    assert other.calls == 0


def test_weights_and_settings_are_in_the_digest(clap, tmp_path):
    assert load_embedder(write_clap(tmp_path / "same")).digest == clap.digest
    assert load_embedder(write_clap(tmp_path / "other", seed=1)).digest != clap.digest
    listeners = [listener_embedder(small_listener(seed)).digest for seed in (0, 0, 1)]
    assert listeners[0] == listeners[1] != listeners[2]


def test_a_cache_refuses_what_it_cannot_tell_apart(tmp_path):
    clips = read_clips(write_clips(tmp_path / "a", range(1)))
    with pytest.raises(EvaluationError, match="has no digest"):
        embed_clips(clips, lambda audio, rate: np.ones(2), cache=tmp_path / "cache")
    embed_clips(clips, Counting().embedder, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(b"damaged")
    with pytest.raises(EvaluationError, match="is damaged.*Remove it"):
        embed_clips(clips, Counting().embedder, cache=tmp_path / "cache")


# Clips


def run_folder(folder, prompt, seed=0):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"attnviz": "1", "prompt": prompt}))
    soundfile.write(folder / "audio.wav", tone(seed), RATE)
    soundfile.write(folder / "source.wav", tone(seed + 1), RATE)
    return folder


def test_runs_and_audio_are_found(tmp_path):
    run_folder(tmp_path / "sweep" / "b", " a dog barks ")
    run_folder(tmp_path / "sweep" / "deep" / "a", "")
    soundfile.write(tmp_path / "sweep" / "plain.flac", tone(0), RATE)
    (tmp_path / "sweep" / "._plain.wav").write_bytes(b"of a desktop")
    (tmp_path / "sweep" / "notes.txt").write_text("no audio")
    clips = read_clips(tmp_path / "sweep")
    assert [(clip.name, clip.path.name, clip.caption) for clip in clips] == [
        ("b", "audio.wav", "a dog barks"),
        ("deep/a", "audio.wav", None),
        ("plain", "plain.flac", None),
    ]
    one = run_folder(tmp_path / "alone", "rain")
    assert [clip.name for clip in read_clips([one, tmp_path / "sweep"])] == ["alone", "b", "deep/a", "plain"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,other,text\n000.wav,1,rain\nsub/x.wav,2,\n"),
        (
            "metadata.jsonl",
            '{"file_name": "000.wav", "caption": "rain"}\n\n{"file_name": "sub/x.wav", "caption": null}\n',
        ),
    ],
)
def test_captions_of_metadata(name, content, tmp_path):
    folder = write_clips(tmp_path / "a", range(2))
    (folder / "sub").mkdir()
    soundfile.write(folder / "sub" / "x.wav", tone(0), RATE)
    (folder / name).write_text(content, encoding="utf-8")
    assert {clip.name: clip.caption for clip in read_clips(folder)} == {"000": "rain", "001": None, "sub/x": None}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,text\nnosuch.wav,rain\n", "names 1 missing file: nosuch.wav"),
        ("metadata.csv", "file_name,text\n000.wav,a\n000.wav,b\n", "entry 2 names '000.wav' a second time"),
        ("metadata.csv", "file,text\n000.wav,a\n", "entry 1 needs file_name and one of"),
        ("metadata.csv", "file_name,text,caption\n000.wav,a,b\n", "entry 1 needs file_name and one of"),
        ("metadata.jsonl", '{"file_name": "000.wav"', "metadata.jsonl, line 1 is not JSON"),
        ("metadata.jsonl", "[]\n", "entry 1 needs"),
        ("metadata.csv", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_metadata_is_refused(name, content, message, tmp_path):
    folder = write_clips(tmp_path / "a", range(1))
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EvaluationError, match=message):
        read_clips(folder)


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="does not exist"):
        read_clips(tmp_path / "nosuch")
    with pytest.raises(EvaluationError, match="has no run and no audio file"):
        (tmp_path / "empty").mkdir()
        read_clips(tmp_path / "empty")
    with pytest.raises(EvaluationError, match="no folder was given"):
        read_clips([])
    folder = write_clips(tmp_path / "a", range(1))
    with pytest.raises(EvaluationError, match="is a file"):
        read_clips(folder / "000.wav")
    with pytest.raises(EvaluationError, match=r"000.wav is listed more than once.*contain another"):
        read_clips([tmp_path, folder])
    broken = run_folder(tmp_path / "run", "rain")
    (broken / "audio.wav").unlink()
    with pytest.raises(EvaluationError, match="has no audio.wav"):
        read_clips(broken)
    (folder / "000.wav").write_bytes(b"no audio")
    with pytest.raises(AttnVizError, match=r"000.wav is not audio"):
        embed_clips(read_clips(folder), lambda audio, rate: np.ones(2))


def clips(*pairs):
    return [Clip(path=None, name=name, caption=caption) for name, caption in pairs]


def test_pairs_by_caption_and_by_name():
    own = clips(("a", "rain"), ("b", "wind"), ("c", "rain"), ("d", "sea"))
    theirs = clips(("x", "sea"), ("y", "rain"), ("z", "rain"))
    assert pair_clips(own, theirs) == ([(0, 1), (0, 2), (2, 1), (2, 2), (3, 0)], "caption")
    unnamed = clips(("b", None), ("a", None), ("z", None))
    assert pair_clips(own, unnamed) == ([(0, 1), (1, 0)], "name")
    with pytest.raises(EvaluationError, match="several clips have the name 'a'"):
        pair_clips(own, clips(("a", None), ("a", None)))
