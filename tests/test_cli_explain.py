"""``attnviz explain``: a run folder of a real clip, its events scored, and nothing half-written."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
from attribution_small import small_pipeline
from typer.testing import CliRunner

import attnviz
from attnviz.audio import image_to_mel, load_audio, log_mel, mel_to_image, peak_normalize
from attnviz.cli.app import app
from attnviz.events import read_events
from attnviz.plots import activations
from attnviz.report.run_folder import is_run
from attnviz.report.saved_run import read_saved_run

CAPTION = "a dog barks, then rain falls"
EVENTS = "filename\tonset\toffset\tevent_label\nclip.wav\t0.5\t1.25\tdog barks\nclip.wav\t5\t11\train\n"
QUICK = ["--timestep", "50", "--draws", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stereo clip of 11 s at 8 kHz, which takes two windows, and its events."""
    folder = tmp_path_factory.mktemp("explained")
    samples = 0.1 * np.random.default_rng(0).standard_normal((88_000, 2))
    soundfile.write(folder / "clip.wav", samples, 8_000)
    soundfile.write(folder / "short.flac", samples[:8_000], 8_000)
    (folder / "events.tsv").write_text(EVENTS)
    return folder


@pytest.fixture(scope="module")
def checkpoint(adapter_checkpoint, tmp_path_factory):
    """Small, so that this is quick; saved as a user would save one."""
    place = tmp_path_factory.mktemp("checkpoints") / "small"
    small_pipeline(adapter_checkpoint).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def explain(checkpoint):
    def run(*arguments, model=checkpoint):
        return CliRunner().invoke(app, ["explain", *map(str, arguments), "--model", str(model)])

    return run


@pytest.fixture(scope="module")
def run(folder, explain):
    out = folder / "deep" / "run"
    given = [
        *QUICK,
        "--readout",
        "auffusion",
        "--keep",
        "head",
        "--overlap",
        5,
        "--seed",
        3,
        "--randomize",
        2,
        "--randomize-seed",
        7,
    ]
    result = explain(folder / "clip.wav", CAPTION, "--events", folder / "events.tsv", "--out", out, *given)
    assert result.exit_code == 0, result.output
    assert "ROC-AUC" in result.stdout
    assert f"Written to {out}: activations.png, alignment.csv, audio.wav, events.tsv, maps.zarr" in result.stdout
    assert "2/2" in result.stderr  # looks, as they come
    return out


def test_run_folder_is_whole(run, folder, checkpoint):
    assert sorted(path.name for path in run.iterdir()) == [
        *("activations.png", "alignment.csv", "audio.wav", "events.tsv", "maps.zarr", "run.json"),
        *("spectrogram.npz", "spectrogram.png", "tokens.csv", "words.png"),
    ]
    assert is_run(run)
    assert [path.name for path in run.parent.iterdir()] == ["run"]  # no temporary folder is left
    record = json.loads((run / "run.json").read_text("utf-8"))
    assert (record["prompt"], record["clip"]) == (CAPTION, str(folder / "clip.wav"))
    assert (record["latents"], record["timesteps"], record["draws"], record["seed"]) == ("noising", [50], 1, 3)
    assert (record["randomize"], record["randomize_seed"]) == (2, 7)
    assert record["overlap"] == 5.0
    said = record["provenance"]
    assert said["randomized"] == {"blocks": ["conv_out", "up_blocks.2"], "seed": 7}
    assert (said["windows"], said["overlap"], said["keep"]) == ([0.0, 0.96], 5.0, ["head"])
    assert said["model"] == str(checkpoint)


def test_audio_has_the_clip_s_own_level_and_the_spectrogram_is_what_the_model_saw(run, folder):
    audio, rate = soundfile.read(run / "audio.wav")
    assert (audio.shape, rate) == ((176_000,), 16_000)
    clip = load_audio(folder / "clip.wav")
    assert np.abs(clip).max() < 0.9  # else its own level would be that of the model's input
    np.testing.assert_allclose(audio, clip, atol=1e-4)
    maps = attnviz.AttentionMaps.load(run / "maps.zarr")
    seen = image_to_mel(mel_to_image(log_mel(peak_normalize(clip))))
    np.testing.assert_allclose(maps.spectrogram[0, 0].to_numpy()[:, :1100], seen, atol=1e-4)
    with np.load(run / "spectrogram.npz") as saved:
        np.testing.assert_array_equal(saved["log_mel"], maps.spectrogram[0, 0])
        assert saved["log_mel"].shape == (256, 1120)
        assert saved["padding"].sum() == 20


def test_events_and_scores_are_those_of_the_maps(run, folder):
    events = read_events(run / "events.tsv")
    pd.testing.assert_frame_equal(events, read_events(folder / "events.tsv"))
    maps = attnviz.AttentionMaps.load(run / "maps.zarr")
    expected = attnviz.align(maps, events, readout="auffusion").table
    scores = pd.read_csv(run / "alignment.csv")
    assert scores["label"].unique().tolist() == ["dog barks", "rain"]
    np.testing.assert_allclose(scores["roc_auc"], expected["roc_auc"])
    assert scores["readout"].unique().tolist() == ["auffusion"]


def test_other_methods_and_no_events(explain, folder, tmp_path):
    result = explain(
        *(folder / "short.flac", "rain", "--out", tmp_path / "run", "--latents", "predicted"),
        *(*QUICK, "--look-timestep", 5, "--own-level", "--special-tokens", "--json", "--quiet"),
        *("--method", "shapley"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["words"] == ["rain"]
    assert "1/1" not in result.stderr  # no progress
    assert not (tmp_path / "run" / "events.tsv").exists()
    said = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["provenance"]
    assert (said["latents"], said["look_timestep"], said["normalize"]) == ("predicted", 5, False)
    assert (said["randomized"], said["overlap"]) == (None, 2.56)
    assert said["attribution"]["method"] == "shapley"
    maps = attnviz.AttentionMaps.load(tmp_path / "run" / "maps.zarr")
    assert (maps.content["method"], maps.layers) == ("shapley", ["prediction"])
    audio, _ = soundfile.read(tmp_path / "run" / "audio.wav")
    np.testing.assert_allclose(audio, load_audio(folder / "short.flac"), atol=1e-4)


def test_a_clip_that_is_clipped_is_said(explain, tmp_path):
    clip = np.clip(2 * np.sin(np.arange(16_000) * 0.3), -1, 1)
    soundfile.write(tmp_path / "loud.wav", clip, 16_000)
    run = tmp_path / "run"
    result = explain(tmp_path / "loud.wav", "rain", "--out", run, *QUICK)
    assert result.exit_code == 0, result.output
    (warned,) = json.loads((run / "run.json").read_text("utf-8"))["warnings"]
    assert re.search(r"The clip is clipped: \d+\.\d ms \(\d+ samples\) are at full scale.*original", warned)


def test_existing_runs_are_kept(explain, folder, run):
    before = (run / "run.json").read_bytes()
    result = explain(folder / "clip.wav", CAPTION, "--out", run, *QUICK)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CLIP", "..."], "no word, only punctuation"),
        (["CLIP", " "], "empty"),
        (["nowhere.wav", CAPTION], "audio file nowhere.wav does not exist"),
        (["EVENTS", CAPTION], "not audio that can be read"),
        (["CLIP", CAPTION, "--events", "nowhere.tsv"], "nowhere.tsv"),
        (["CLIP", CAPTION, "--events", "CLIP"], "EventsError"),
        (["CLIP", "a dog barks", "--events", "EVENTS"], "'rain' of clip 'clip.wav' is not in the caption"),
        (["CLIP", CAPTION, "--keep", "time"], "keep=time"),
        (["CLIP", CAPTION, "--precision", "int3"], "bfloat16"),
    ],
)
def test_bad_requests_write_nothing_and_load_no_model(arguments, message, explain, folder, tmp_path):
    places = {"CLIP": folder / "clip.wav", "EVENTS": folder / "events.tsv"}
    arguments = [places.get(argument, argument) for argument in arguments]
    result = explain(*arguments, "--out", tmp_path / "run", model="nobody/nosuch")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_fitted_readout_is_available_for_the_bundled_model(folder, tmp_path):
    given = [folder / "short.flac", CAPTION, *QUICK, "--readout", "fitted", "--out", tmp_path / "run"]
    result = CliRunner().invoke(app, ["explain", *map(str, given)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "lime"], "method 'lime' is unknown. Known: attention, value"),
        (["--method", "shapley", "--readout", "auffusion"], "has one layer, 'prediction'"),
        (["--latents", "inversion", "--draws", "2"], "draws=2 does not belong"),
        (["--latents", "inversion", "--timestep", "55"], "inversion_steps=200 includes"),
        (["--timestep", "1000"], "1000"),
        (["--overlap", "10"], "overlap=10"),
        (["--randomize", "attn"], "randomize='attn'"),
        (["--randomize-seed", "1"], "no block is randomised"),
        (["--readout", "nosuch"], "There is no layer 'nosuch'"),
        (["--readout", "fitted"], "applies to the bundled model"),
        (["--readout", "fitted", "--randomize", "1"], "fitted for the trained weights"),
    ],
)
def test_settings_that_cannot_be_write_nothing(options, message, explain, folder, tmp_path):
    result = explain(folder / "clip.wav", CAPTION, "--out", tmp_path / "run", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_of_several_captions_the_events_of_the_given_one(explain, data_dir, tmp_path):
    """AudioGrounding has five captions of this clip, with spans in each."""
    clip, events = data_dir / "audiocaps" / "_GI7meqlYZk_30.wav", data_dir / "audiogrounding" / "test.json"
    caption = "a cat is meowing, and a child is speaking"
    wrong = explain(clip, "a cat meows", "--events", events, "--out", tmp_path / "run")
    assert wrong.exit_code == 1
    assert "none of these is the prompt of the maps, 'a cat meows'" in wrong.stderr
    result = explain(clip, caption, "--events", events, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 0, result.output
    kept = read_events(tmp_path / "run" / "events.tsv")
    assert set(kept["caption"]) == {caption}
    assert 0 < len(kept) < 49  # of the clip there are 49, under five captions
    run = read_saved_run(tmp_path / "run")
    ax = activations(run.maps, run.events)  # no lane of another caption's words
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "a cat is meowing",
        "a child is speaking",
    ]
    scores = pd.read_csv(tmp_path / "run" / "alignment.csv")
    scored = scores[["label", "start", "end"]].drop_duplicates().to_numpy().tolist()
    assert scored == [["a cat is meowing", 0, 16], ["a child is speaking", 22, 41]]


def test_the_record_has_the_settings_that_were_not_given(folder, explain, tmp_path):
    out = tmp_path / "run"
    result = explain(folder / "short.flac", CAPTION, "--timestep", 50, "--draws", 1, "--out", out)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert (record["latents"], record["timesteps"], record["draws"], record["seed"]) == ("noising", [50], 1, 0)
    assert record["overlap"] == record["provenance"]["overlap"]


def test_scores_are_shown_as_align_shows_them(run, folder, explain, tmp_path):
    """The same tables and lines: events, a row for each phrase, scores with controls, verdicts."""
    out = tmp_path / "run"
    given = ("--events", folder / "events.tsv", *QUICK)
    shown = explain(folder / "clip.wav", CAPTION, *given, "--out", out).stdout
    again = CliRunner().invoke(app, ["align", str(out), "--overwrite"])
    assert again.exit_code == 0, again.output
    scores = again.stdout.split("\nWritten to")[0].rstrip()
    assert shown.startswith(scores)
    assert "Events scored" in scores
    assert "dog barks" in scores
