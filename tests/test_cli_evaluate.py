from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from evaluation.evaluation_models import RATE, tone, write_clap, write_clips
from typer.testing import CliRunner

from attnviz import evaluation as ev
from attnviz.cli.app import app
from attnviz.errors import AttnVizWarning, EvaluationError, InaudibleWarning
from attnviz.evaluation import Embedder, embed_clips, listener_embedder, read_clips

ENDINGS = ("FD", "FD-inf", "KAD", "KID", "IS", "KL-softmax", "KL-sigmoid")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sets of clips with captions, of which those of the first repeat; and the cache of their embeddings."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_clips(folder / "made", range(12), captions=True)
    write_clips(folder / "real", range(30, 44), captions=True)
    ev.evaluate(folder / "made", folder / "real", cache=folder / "cache", n_resamples=0)
    return folder


@pytest.fixture
def run(folders):
    def invoke(*arguments, reference=folders / "real"):
        words = ["evaluate", *map(str, arguments), "--cache", str(folders / "cache"), "--resamples", "20"]
        return CliRunner().invoke(app, words + (["--reference", str(reference)] if reference else []))

    return invoke


def small(audio, rate):
    """Return two numbers and three logits of a clip."""
    parts = [np.abs(part).mean() for part in np.array_split(audio, 3)]
    return {"embedding": np.array([audio.std(), np.abs(np.diff(audio)).mean()]), "logits": np.log(parts)}


def test_values_are_those_of_the_functions(folders):
    found = ev.evaluate(folders / "made", folders / "real", embedders=[small], n_resamples=30, seed=5)
    table = found.table.set_index("metric")
    assert list(table.index) == [f"{name}-small" for name in ENDINGS]
    clips = [read_clips(folders / name) for name in ("made", "real")]
    own, theirs = (embed_clips(each, small) for each in clips)
    how = {"n_resamples": 30, "seed": 5, "units": [clip.caption for clip in clips[0]]}
    expected = {
        "FD-small": ev.frechet_distance(own.embeddings, theirs.embeddings, **how),
        "KAD-small": ev.kernel_audio_distance(own.embeddings, theirs.embeddings, **how),
        "IS-small": ev.inception_score(own.logits, **how),
    }
    for name, estimate in expected.items():
        expected_row = [estimate.value, estimate.low, estimate.high]
        np.testing.assert_array_equal(table.loc[name, ["value", "low", "high"]].astype(float), expected_row)
        assert table.loc[name, "needed"] == estimate.needed
    pairs, by = ev.pair_clips(*clips)
    assert by == "caption"
    each = [
        np.mean([
            ev.kl_divergence(own.logits[[i]], theirs.logits[[k]], n_resamples=0).value for j, k in pairs if j == i
        ])
        for i in range(12)
    ]  # fmt: skip
    assert table.loc["KL-softmax-small", "value"] == pytest.approx(np.mean(each), rel=1e-9)
    assert found.summary().splitlines()[1].split()[:1] == ["FD-small"]
    assert "pairs by caption: 12 of 12 evaluated and 14 of 14 reference clips" in found.notes
    assert "intervals draw clips with the same caption together: 3 captions of 12 clips" in found.notes


def test_a_distance_from_the_same_clips_is_0(folders):
    with pytest.warns(AttnVizWarning, match="12 of 12 evaluated clips are also in the reference: 000"):
        table = ev.evaluate(folders / "made", folders / "made", embedders=[small], n_resamples=0).table
    values = table.set_index("metric")["value"]
    assert values["FD-small"] == pytest.approx(0, abs=1e-12)
    assert values["KAD-small"] < 0  # unbiased: a clip is no pair with itself within a set


def test_the_table_names_embedder_and_clips(run, folders):
    result = run(folders / "made")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "Higher is better: IS-listener." in text
    assert "Lower is better: KAD-listener, KID-listener, KL-softmax-listener, KL-sigmoid-listener." in text
    assert "clips needed" in text
    assert "IS-listener: fewer clips than needed" not in text
    assert "no CLAP score of listener, which does not embed text" in text
    assert "12 : 14" in text
    for name in ("KAD-listener", "KID-listener", "IS-listener", "KL-softmax-listener", "KL-sigmoid-listener"):
        assert name in text
    assert "listener: a listener that knows 10 sounds: its values do not compare with those of papers" in text
    assert "FD-listener: the Frechet distance needs at least 193 evaluated and 193 reference clips" in text
    assert "there are 12 evaluated and 14 reference clips" in text


def test_json_and_csv(run, folders, tmp_path):
    out = tmp_path / "metrics.csv"
    result = run(folders / "made", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [row["metric"] for row in answer["metrics"]] == [f"{name}-listener" for name in ENDINGS]
    kad = answer["metrics"][2]
    assert kad["low"] is None  # the clips have three captions
    inception = answer["metrics"][4]
    assert inception["low"] <= inception["value"] <= inception["high"]
    assert (kad["clips"], kad["reference_clips"], kad["needed"], kad["better"]) == (12, 14, 4, "lower")
    assert answer["metrics"][0]["value"] is None
    assert answer["out"] == str(out)
    table = pd.read_csv(out)
    assert table["value"][2] == pytest.approx(kad["value"])
    assert run(folders / "made", "--out", out).exit_code == 1
    assert run(folders / "made", "--out", out, "--overwrite").exit_code == 0
    out.write_text("mine")
    assert "is not replaced" in run(folders / "made", "--out", out, "--overwrite").stderr


def test_clap_score_needs_no_reference(run, folders, tmp_path):
    clap = write_clap(tmp_path / "clap")
    result = run(folders / "made", "--embedder", clap, "--embedder", "listener", "--json", reference=None)
    assert result.exit_code == 0, result.output
    rows = {row["metric"]: row for row in json.loads(result.stdout)["metrics"]}
    assert list(rows) == ["clap-score", "IS-listener"]
    embedder = ev.load_embedder(clap)
    clips = read_clips(folders / "made")
    expected = ev.clap_score(
        embed_clips(clips, embedder).embeddings, embedder.text([clip.caption for clip in clips]), n_resamples=0
    )
    assert rows["clap-score"]["value"] == pytest.approx(expected.value, abs=1e-6)
    assert rows["clap-score"]["reference_clips"] == 0


def test_a_few_runs_against_all_of_them(tmp_path, monkeypatch):
    """As in the README: sets so small that some resamples have no pair of clips, and that share clips."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("dog", "swap", "refine", "quieter")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"attnviz": "1", "prompt": f"a {name} sounds"}))
        soundfile.write(folder / "audio.wav", tone(seed), RATE)
    words = ["evaluate", "runs/swap", "runs/refine", "--reference", "runs", "--out", "runs/metrics.csv"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "cannot be heard" not in result.stderr
    table = pd.read_csv("runs/metrics.csv").set_index("metric")
    assert np.isfinite(table.loc["KAD-listener", "value"])
    assert np.isnan(table.loc["KAD-listener", "low"])  # of two clips, an interval would say too much
    assert "KAD-listener: fewer clips than needed" in result.stdout
    assert table.loc["KL-softmax-listener", "value"] == pytest.approx(0, abs=1e-4)  # of each with itself


def test_silent_clips_are_named(tmp_path):
    folder = write_clips(tmp_path / "a", range(3))
    soundfile.write(folder / "001.wav", np.zeros(8000), RATE)
    embedders = [listener_embedder()]
    with pytest.warns(InaudibleWarning, match=r"1 of 3 evaluated clips cannot be heard.*: 001\."):
        found = ev.evaluate(folder, embedders=embedders, n_resamples=0)
    assert np.isfinite(found.table["value"]).all()


def test_bad_evaluations_are_refused(folders):
    made = folders / "made"
    with pytest.raises(EvaluationError, match="embedders is empty"):
        ev.evaluate(made, embedders=[])
    with pytest.raises(EvaluationError, match="several embedders have the name 'small'"):
        ev.evaluate(made, embedders=[small, Embedder("small", small)])
    with pytest.raises(EvaluationError, match="n_resamples is -1"):
        ev.evaluate(made, embedders=[small], n_resamples=-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nosuch",), "nosuch does not exist"),
        (("made", "--embedder", "vggish"), "VGGish cannot be loaded"),
        (("made", "--embedder", "nosuch"), "There is no folder 'nosuch'"),
        (("made", "made"), "listed more than once"),
        (("made", "--device", "cpu:9"), "device 'cpu:9' does not exist"),
        (("broken",), "x.wav is not audio"),
    ],
)
def test_errors_write_nothing(arguments, message, run, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.wav").write_bytes(b"no audio")
    (tmp_path / "made").symlink_to(folders / "made")
    result = run(*arguments, "--out", "metrics.csv", "--json")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert message in json.loads(result.stdout)["message"]
    assert not (tmp_path / "metrics.csv").exists()


def test_fewer_clips_than_a_metric_needs_are_said(run, folders, tmp_path):
    write_clips(tmp_path / "few", range(3), captions=True)
    result = run(tmp_path / "few", reference=None)
    assert result.exit_code == 0, result.output
    assert "IS-listener: fewer clips than needed" in " ".join(result.stdout.split())
