"""Scales, offsets, units, masks and folders at which a metric would be wrong, or would not end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from scipy.spatial.distance import cdist, pdist

from attnviz.audio import write_wav
from attnviz.errors import EvaluationError
from attnviz.evaluation import (
    Embedder,
    EmbeddingCache,
    Moments,
    clap_score,
    evaluate,
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    kernel_audio_distance,
    kernel_inception_distance,
    kernels,
    median_distance,
)
from attnviz.evaluation.clips import read_clips
from attnviz.evaluation.result import _with_interval


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 5)), rng.normal(0.3, 1.2, size=(40, 5))


# ---- scales ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1.0, 1e60])
def test_directions_have_no_scale(scale, sets):
    pairs = sets[0], sets[0] + 0.5
    expected = clap_score(*pairs, n_resamples=0).value
    assert clap_score(pairs[0] * scale, pairs[1] * scale, n_resamples=0).value == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("scale", [1e-60, 1e-5, 1e5, 1e60])
def test_the_kernel_distance_has_the_scale_of_its_bandwidth(scale, sets):
    expected = kernel_audio_distance(*sets, n_resamples=0).value
    found = kernel_audio_distance(sets[0] * scale, sets[1] * scale, n_resamples=0)
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert median_distance(sets[0] * scale) == pytest.approx(median_distance(sets[0]) * scale, rel=1e-12)


def literal_kad(first, second, width):
    """100 times the unbiased squared MMD, of distances that are computed one by one."""

    def mean_of_pairs(rows):
        return np.exp(-pdist(rows, "sqeuclidean") / (2 * width**2)).mean()

    cross = np.exp(-cdist(first, second, "sqeuclidean") / (2 * width**2)).mean()
    return 100 * (mean_of_pairs(first) + mean_of_pairs(second) - 2 * cross)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e8])
@pytest.mark.parametrize("outlier", [0.0, 1e9])
def test_the_kernel_distance_of_sets_that_are_far_apart(offset, outlier, sets):
    first, second = sets[0] + offset, sets[1].copy()
    second[0] += outlier
    for one, other in ((first, second), (second, first)):
        found = kernel_audio_distance(one, other, bandwidth=2.0, n_resamples=0).value
        assert found == pytest.approx(literal_kad(one, other, 2.0), rel=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        frechet_distance,
        lambda x, y: frechet_distance_infinity(x, y, allow_few=True),
        kernel_audio_distance,
        kernel_inception_distance,
        clap_score,
    ],
)
def test_values_whose_powers_are_no_numbers_are_refused(metric, sets):
    with pytest.raises(EvaluationError, match=r"has values up to .*e\+160; above 1e\+70"):
        metric(sets[0] * 1e160, sets[1][:30] * 1e160)


@pytest.mark.parametrize("width", [0.0, -1.0, np.nan, np.inf, 1e-200, 1e200, 10**400])
def test_bandwidths_that_are_none(width, sets):
    with pytest.raises(EvaluationError, match="bandwidth is"):
        kernel_audio_distance(*sets, bandwidth=width)


def test_a_kernel_that_overflows_is_no_value(sets):
    with pytest.raises(EvaluationError, match="choose a lower degree"):
        kernel_inception_distance(sets[0] * 1e60, sets[1] * 1e60, degree=10)


def test_equal_clips_have_the_score_1():
    found = inception_score(np.tile([0.1, 0.7, 0.2], (7, 1)), given="probabilities")
    assert found.value >= 1
    assert found.low <= found.value <= found.high


# ---- what is no array of clips -----------------------------------------------------------------------------


def test_masks_are_not_lost(sets):
    masked = np.ma.masked_greater(sets[0], 2.0)
    with pytest.raises(EvaluationError, match="has masked values"):
        frechet_distance(masked, sets[1])
    frechet_distance(np.ma.masked_greater(sets[0], 99.0), sets[1])  # nothing is masked


@pytest.mark.parametrize(
    ("mean", "scatter", "message"),
    [
        (np.zeros(2), np.full((2, 2), np.nan), "reference: the moments have values that are NaN"),
        (np.zeros(2), np.eye(3), r"a mean of 2 columns with a scatter of shape \(3, 3\)"),
    ],
)
def test_moments_that_are_none(mean, scatter, message):
    good = Moments.of(np.random.default_rng(0).normal(size=(9, 2)))
    with pytest.raises(EvaluationError, match=message):
        frechet_distance(good, Moments(9, mean, scatter))


@pytest.mark.parametrize(
    ("units", "message"),
    [([["a"], ["a", "b"]], "units is a list; a text or number"), (["a"], "has 1 value; one for")],
)
def test_units_that_are_none(units, message, sets):
    with pytest.raises(EvaluationError, match=message):
        frechet_distance(*sets, units=units)


# ---- intervals that would say too much ---------------------------------------------------------------------


def test_one_unit_has_no_interval(sets):
    one = {"units": ["a"] * 30, "n_resamples": 50}
    found = [
        frechet_distance(*sets, **one),
        frechet_distance_infinity(*sets, **one),
        kernel_audio_distance(*sets, **one),
        inception_score(sets[0], **one),
        clap_score(sets[0], sets[1][:30], **one),
    ]
    assert np.isnan([[estimate.low, estimate.high] for estimate in found]).all()
    assert np.isfinite([estimate.value for estimate in found]).all()


@pytest.mark.parametrize(("first", "second", "known"), [(2, 40, False), (30, 3, False), (4, 4, True)])
def test_few_clips_have_a_kernel_distance_but_no_interval(first, second, known, sets):
    found = kernel_audio_distance(sets[0][:first], sets[1][:second], n_resamples=50)
    assert found.needed == 4
    assert np.isfinite(found.value)
    assert np.isfinite(found.low) == known


@pytest.mark.parametrize(("clips", "least", "most"), [(2, 0.0, 0.5), (4, 0.9, 1.0)])
def test_an_interval_of_four_clips_holds_and_one_of_two_would_not(clips, least, most, monkeypatch):
    monkeypatch.setattr(kernels, "FEWEST_FOR_INTERVAL", 2)
    rng = np.random.default_rng(0)
    how = {"bandwidth": 5.0}
    many = rng.normal(size=(800, 16)) + 0.3, rng.normal(size=(800, 16))
    expected = kernel_audio_distance(*many, **how, n_resamples=0).value
    held = []
    for seed in range(60):
        sets = rng.normal(size=(clips, 16)) + 0.3, rng.normal(size=(100, 16))
        found = kernel_audio_distance(*sets, **how, n_resamples=100, seed=seed)
        held.append(found.low <= expected <= found.high)
    assert least <= np.mean(held) <= most


@pytest.mark.parametrize(
    ("value", "low", "high"), [(1.0026, 1.0015, 1.0043), (6.27e-6, -9.28e-6, 2.87e-5), (123.4, 98.2, 150.1)]
)
def test_printed_intervals_are_seen_to_contain_the_value(value, low, high):
    text = _with_interval(value, low, high)
    shown, ends = text.split(" [")
    first, second = (float(part) for part in ends.rstrip("]").split(", "))
    assert first < float(shown) < second
    assert len(text) < 34


# ---- folders -----------------------------------------------------------------------------------------------


def noise(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, np.random.default_rng(seed).normal(size=16_000).astype(np.float32) / 10)


def test_links_to_a_folder_above_are_not_followed(tmp_path):
    noise(tmp_path / "loop" / "a" / "x.wav")
    for name in ("l1", "l2", "l3"):
        (tmp_path / "loop" / "a" / name).symlink_to("..")
    assert [clip.name for clip in read_clips(tmp_path / "loop")] == ["a/x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,caption\n0.wav,a dog, then rain\n", "another number of fields"),
        ("file_name,caption\n0.wav\n", "another number of fields"),
        ("file_name,caption,caption\n0.wav,a dog,rain\n", "the column 'caption' more than once"),
    ],
)
def test_captions_that_would_be_cut_are_refused(text, message, tmp_path):
    noise(tmp_path / "0.wav")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_clips(tmp_path)


def test_a_corpus_is_no_folder_of_audio(tmp_path):
    (tmp_path / "corpus.json").write_text("{}")
    with pytest.raises(EvaluationError, match="is a corpus, whose clips are not kept"):
        read_clips(tmp_path)


def test_folders_and_clips_are_not_mixed(tmp_path):
    noise(tmp_path / "a" / "0.wav")
    (clip,) = read_clips(tmp_path / "a")
    with pytest.raises(EvaluationError, match="clips and paths are mixed"):
        evaluate([clip, str(tmp_path / "a")])


# ---- embedders ---------------------------------------------------------------------------------------------


def test_a_callable_of_one_argument_is_told_what_it_gets(tmp_path):
    noise(tmp_path / "0.wav")
    with pytest.raises(EvaluationError, match=r"called with \(audio, sampling_rate\), which it does not take"):
        evaluate(tmp_path, embedders=[Embedder("rms", lambda audio: np.ones(3))])
    with pytest.raises(EvaluationError, match="expected an array of numbers"):
        evaluate(tmp_path, embedders=[Embedder("ragged", lambda audio, rate: [[1.0], [1.0, 2.0]])])


def test_one_embedder_is_a_list_of_one(tmp_path):
    for number in range(3):
        noise(tmp_path / f"{number}.wav", number)
    found = evaluate(tmp_path, embedders="listener", n_resamples=0)
    assert set(found.table["embedder"]) == {"listener"}


def test_a_cached_file_without_level_is_made_again(tmp_path):
    noise(tmp_path / "clips" / "0.wav")
    noise(tmp_path / "clips" / "1.wav", 1)
    embedder = Embedder("logits", lambda audio, rate: {"logits": np.array([1.0, audio.std()])}, digest="x")
    cache = EmbeddingCache(tmp_path / "cache")
    whole = evaluate(tmp_path / "clips", embedders=[embedder], cache=cache, n_resamples=0).table
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        kept = safetensors.numpy.load(path.read_bytes())
        path.write_bytes(safetensors.numpy.save({"logits": kept["logits"]}))
    again = evaluate(tmp_path / "clips", embedders=[embedder], cache=cache, n_resamples=0).table
    pd.testing.assert_frame_equal(again, whole)
    path.write_bytes(safetensors.numpy.save({"logits": np.zeros((2, 2))}))
    with pytest.raises(EvaluationError, match="in the cache is damaged: logits"):
        evaluate(tmp_path / "clips", embedders=[embedder], cache=cache, n_resamples=0)


def test_metrics_without_a_value_still_say_what_they_need(tmp_path):
    for number in range(6):
        noise(tmp_path / ("made" if number < 3 else "real") / f"{number}.wav", number)
    found = evaluate(tmp_path / "made", tmp_path / "real", n_resamples=0)
    row = found.table.set_index("metric").loc["FD-listener"]
    assert row["undefined"]
    assert "allow_few" not in row["undefined"]
    assert row["better"] == "lower"
    assert row["needed"] > 3
    assert any("no KL, which compares pairs" in note for note in found.notes)
