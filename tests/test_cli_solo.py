"""``attnviz solo``: the audio of each phrase of a run, in its folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report.report_runs import small_maps, sweep, write_run
from typer.testing import CliRunner

from attnviz.audio import load_audio
from attnviz.cli.app import app
from attnviz.report.run_folder import is_run

PROMPT = "a dog barks, then rain — falls"


def run(*arguments):
    return CliRunner().invoke(app, ["solo", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("solo") / "run", small_maps(PROMPT))


@pytest.fixture
def folder(made, tmp_path):
    import shutil

    return shutil.copytree(made, tmp_path / "run")


def test_all_phrases(folder):
    result = run(folder, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    files = ["solo-dog-barks.wav", "solo-rain.wav", "solo-falls.wav"]
    assert found["files"] == files
    assert [one["phrase"] for one in found["solos"]] == ["dog barks", "rain", "falls"]
    total = sum(load_audio(folder / file) for file in files)
    assert np.abs(total - sweep()).max() < 5 / 32768  # each file is rounded to 16 bits
    assert is_run(folder)
    assert found["solos"][0]["level_dbfs"] < 0
    assert not found["estimated"]


def test_one_phrase(folder):
    result = run(folder, "dog barks", "--readout", "auffusion")
    assert result.exit_code == 0, result.output
    assert "solo-dog-barks.wav: -" in result.stdout
    assert "dBFS" in result.stdout
    assert sorted(path.name for path in folder.glob("solo-*")) == ["solo-dog-barks.wav"]
    before = (folder / "solo-dog-barks.wav").read_bytes()
    again = run(folder, "dog barks")
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert (folder / "solo-dog-barks.wav").read_bytes() == before
    assert run(folder, "dog barks", "--overwrite", "--exponent", 2).exit_code == 0
    assert (folder / "solo-dog-barks.wav").read_bytes() != before


def test_nothing_is_written_where_one_file_is_taken(folder):
    (folder / "solo-falls.wav").write_text("mine")
    result = run(folder)
    assert result.exit_code == 1
    assert [path.name for path in folder.glob("solo-*")] == ["solo-falls.wav"]
    assert (folder / "solo-falls.wav").read_text() == "mine"


def test_without_audio_the_clip_is_estimated(folder):
    (folder / "audio.wav").unlink()
    result = run(folder, "rain")
    assert result.exit_code == 1  # these maps have no spectrogram
    assert "no spectrogram" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["cat"], "not in the prompt"), (["dog", "--exponent", "0"], "above 0"), (["dog", "dog barks"], "overlap")],
)
def test_it_refuses(folder, arguments, said):
    result = run(folder, *arguments)
    assert result.exit_code == 1
    assert said in result.stderr.replace("\n", " ")
    assert not list(folder.glob("solo-*"))


def test_no_run(tmp_path):
    assert "not a run folder" in run(tmp_path).stderr.replace("\n", " ")


def test_words_that_name_no_sound_are_said(folder):
    result = run(folder, "then")
    assert result.exit_code == 0, result.output
    assert "'then' names no sound" in result.stderr
    assert "'dog barks', 'rain', 'falls'" in result.stderr
    assert "names no sound" not in run(folder, "then rain").stderr
