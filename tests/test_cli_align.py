from __future__ import annotations

import functools
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from alignment_synthetic import COLUMNS, DOG, GRID, RAIN, event_rows, planted_maps
from listener.small_listeners import certain_listener
from typer.testing import CliRunner

from attnviz.alignment import align as score
from attnviz.cli.app import app
from attnviz.events import read_tsv, write_tsv
from attnviz.listener import listening

ROWS = (("dog barks", 0.1, 0.3), ("rain falls", 0.2, 0.5), ("rain falls", 0.55, 0.6))


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(GRID.height, GRID.width))
    return planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}, log_mel=mel)


@pytest.fixture
def run(tmp_path, maps):
    folder = tmp_path / "[red]run"
    folder.mkdir()
    maps.save(folder / "maps.zarr")
    return folder


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.tsv"
    write_tsv(event_rows(*ROWS, source=["a", "b", "b"]), path)
    return path


def align(*arguments):
    return CliRunner().invoke(app, ["align", *map(str, arguments)], env={"COLUMNS": "200"})


def test_scores_are_written_and_printed(run, events, maps):
    result = align(run, "--events", events)
    assert result.exit_code == 0, result.output
    written = pd.read_csv(run / "alignment.csv", keep_default_na=False, na_values={"roc_auc": [""]})
    wanted = score(maps, event_rows(*ROWS)).table
    np.testing.assert_allclose(written["roc_auc"], wanted["roc_auc"])
    assert written["label"].tolist() == wanted["label"].tolist()
    assert written["source"].unique().tolist() == ["a", "b"]
    out = result.stdout
    for text in ("dog barks", "columns of 20 ms", "2 source recordings", "map minus energy", "ROC-AUC", "Written"):
        assert text in out
    auc = wanted[(wanted["method"] == "map") & (wanted["label"] == "dog barks")]["roc_auc"].item()
    assert f"{auc:.3f}" in out[out.index("Phrases") :].split("dog barks")[1].splitlines()[0]
    assert "[red]run" in out
    pd.testing.assert_frame_equal(read_tsv(run / "events.tsv"), read_tsv(events))  # the truth is kept in the run


def test_an_existing_file_is_kept(run, events):
    assert align(run, "--events", events).exit_code == 0
    before = (run / "alignment.csv").read_bytes()
    result = align(run, "--events", events, "--readout", "down.0.0")
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert (run / "alignment.csv").read_bytes() == before
    assert align(run, "--events", events, "--overwrite").exit_code == 0
    assert (run / "alignment.csv").read_bytes() == before
    (run / "alignment.csv").write_text("my own notes")
    result = align(run, "--events", events, "--overwrite")
    assert result.exit_code == 1
    assert (run / "alignment.csv").read_text() == "my own notes"


def test_one_clip_of_a_file(run, tmp_path):
    path = tmp_path / "many.tsv"
    write_tsv(pd.concat([event_rows(*ROWS), event_rows(ROWS[0], clip="other.wav")]), path)
    result = align(run, "--events", path)
    assert result.exit_code == 1
    assert "--clip" in result.stderr
    assert align(run, "--events", path, "--clip", "other.wav").exit_code == 0
    assert pd.read_csv(run / "alignment.csv")["clip"].unique().tolist() == ["other.wav"]


def test_nothing_that_can_be_scored(run, tmp_path):
    path = tmp_path / "events.tsv"
    write_tsv(event_rows(("dog barks", 0.0, 0.72)), path)
    result = align(run, "--events", path)
    assert result.exit_code == 0, result.output
    assert "over the whole clip" in result.stdout
    assert "No phrase could be scored" in result.stdout


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ((("a cat", 0.1, 0.2),), (), "is not in the caption"),
        ((("dog barks", 1.0, 2.0),), (), "ends at 2 s"),
        (ROWS, ("--readout", "nosuch"), "Unknown readout"),
        (ROWS, ("--clip", "nosuch.wav"), "nosuch"),
        (None, (), "events"),
    ],
)
def test_errors_write_nothing(run, tmp_path, rows, options, message):
    path = tmp_path / "events.tsv"
    if rows is not None:
        write_tsv(event_rows(*rows), path)
    result = align(run, "--events", path, *options)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr.replace("\n", " ")
    assert [entry.name for entry in run.iterdir()] == ["maps.zarr"]


def test_a_folder_without_maps(tmp_path, events):
    empty = tmp_path / "empty"
    empty.mkdir()
    for given in ((), ("--events", events)):  # no word of its events before it is a run
        result = align(empty, *given)
        assert result.exit_code == 1
        assert "is not a run folder" in result.stderr
    assert not list(empty.iterdir())


@pytest.fixture
def heard(run, tmp_path, monkeypatch):
    """A run with audio, of which a listener hears what it is made to hear."""
    soundfile.write(run / "audio.wav", 0.1 * np.random.default_rng(0).standard_normal(11_520), 16_000)

    def hears(*classes):
        certain_listener(*classes).save_pretrained(tmp_path / "listener")
        monkeypatch.setattr(listening, "listen", functools.partial(listening.listen, model=tmp_path / "listener"))
        return run

    return hears


def test_what_is_heard_is_scored_as_the_phrases_of_the_prompt(heard):
    """Rain all the time; no dog; and sea waves, which the prompt does not name."""
    run = heard("Rain", "Sea waves")
    result = align(run, "--listen", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    found = {row["label"]: row["undefined"] for row in said["phrases"] if row["method"] == "map"}
    assert found == {"Dog bark": "silent in the clip", "Rain": "over the whole clip"}
    assert "Sea waves 0.00-0.72 s" in "".join(said["warnings"])
    kept = read_tsv(run / "events.tsv")
    prompt = said["events"][0]["caption"]
    assert {label: prompt[slice(*span)] for label, span in zip(kept["label"], kept["span"], strict=True)} == {
        "Dog bark": "a dog barks",
        "Rain": "rain",
    }
    assert align(run, "--overwrite").exit_code == 0  # the run's own events, as they were kept


def test_events_that_name_classes_need_no_mapping(run, tmp_path, maps):
    path = tmp_path / "events.tsv"
    write_tsv(event_rows(("Dog_bark", 0.1, 0.3), ("Rain", 0.2, 0.5), ("Rain", 0.55, 0.6)), path)
    assert align(run, "--events", path).exit_code == 0
    written = pd.read_csv(run / "alignment.csv")
    spans = dict(zip(written["label"], zip(written["start"], written["end"], strict=True), strict=True))
    assert spans == {"Dog_bark": (0, 11), "Rain": (18, 22)}


def test_which_events_are_meant_has_to_be_said(run, events):
    for options in ((), ("--listen", "--events", events), ("--listen", "--clip", "x.wav")):
        result = align(run, *options)
        assert result.exit_code == 1
        assert "--events" in result.stderr.replace("\n", " ") or "--clip" in result.stderr
        assert [entry.name for entry in run.iterdir()] == ["maps.zarr"]


def test_other_events_of_the_run_are_not_replaced_unasked(run, events, tmp_path):
    assert align(run, "--events", events).exit_code == 0
    (run / "alignment.csv").unlink()
    other = tmp_path / "other.tsv"
    write_tsv(event_rows(ROWS[0]), other)
    before = (run / "events.tsv").read_bytes()
    result = align(run, "--events", other)
    assert result.exit_code == 1
    assert "events.tsv exists already" in result.stderr
    assert (run / "events.tsv").read_bytes() == before
    assert not (run / "alignment.csv").exists()
    assert align(run, "--events", other, "--overwrite").exit_code == 0
