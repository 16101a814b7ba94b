from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from listener.small_listeners import certain_listener
from typer.testing import CliRunner

from attnviz.cli.app import app
from attnviz.events import read_tsv

RATE = 16_000


@pytest.fixture
def folder(tmp_path):
    certain_listener("Rain", "Sea waves").save_pretrained(tmp_path / "listener")
    return tmp_path / "listener"


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "[red]clip.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(24_000), RATE)
    return path


@pytest.fixture
def listen(folder):
    def run(*arguments, model=folder):
        return CliRunner().invoke(app, ["listen", *map(str, arguments), "--model", str(model)])

    return run


def test_events_strongest_and_quality_are_printed(listen, clip, folder):
    result = listen(clip)
    assert result.exit_code == 0, result.output
    assert "[red]clip.wav" in result.stdout
    rows = [line for line in result.stdout.splitlines() if "0.00" in line]
    assert len(rows) == 2
    assert "Rain" in rows[0]
    assert "1.50" in rows[0]
    assert "strongest: Rain 0.98, Sea waves 0.98, Dog bark 0.02" in result.stdout
    assert result.stdout.splitlines()[-1] == "listener: quality not measured, 40 ms frames"
    quality = {"fold": 4, "frame_map": 0.5, "psds1": 0.3, "ap": {}}
    (folder / "quality.json").write_text(json.dumps(quality))
    assert "frame mAP 0.50 on unseen recordings (fold 4), 40 ms frames" in listen(clip).stdout


def test_nothing_heard(listen, clip, folder):
    certain_listener().save_pretrained(folder)
    result = listen(clip)
    assert result.exit_code == 0
    assert "No sound" in result.stdout
    assert "quality not measured" in result.stdout


def test_events_are_written(listen, clip, tmp_path):
    out = tmp_path / "events.tsv"
    result = listen(clip, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"Written to {out}" in result.stdout
    events = read_tsv(out)
    assert events["label"].tolist() == ["Rain", "Sea waves"]
    assert events["offset"].tolist() == [1.5, 1.5]
    assert set(events["clip"]) == {clip.name}


def test_existing_files_are_kept(listen, clip, tmp_path):
    out, before = tmp_path / "events.tsv", clip.read_bytes()
    assert listen(clip, "--out", out).exit_code == 0
    written = out.read_bytes()
    out.write_bytes(written + b"other.wav\t0\t1\tRain\n")
    result = listen(clip, "--out", out)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert out.read_bytes() != written
    assert listen(clip, "--out", out, "--overwrite").exit_code == 0
    assert out.read_bytes() == written
    result = listen(clip, "--out", clip, "--overwrite")  # the clip itself
    assert result.exit_code == 1
    assert "is not replaced" in result.stderr
    assert clip.read_bytes() == before


@pytest.mark.parametrize(
    ("clip_name", "model", "message"),
    [
        ("nosuch.wav", None, "nosuch.wav does not exist"),
        ("listener/config.json", None, "is not audio"),
        ("listener", None, "listener is a folder; give a file in it"),
        ("[red]clip.wav", "nosuch", "folder of the listener nosuch does not exist"),
    ],
)
def test_errors_write_nothing(clip_name, model, message, listen, clip, folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = listen(tmp_path / clip_name, "--out", tmp_path / "events.tsv", model=model or folder)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr.replace("\n", " ")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_place_is_looked_at_first(listen, tmp_path):
    result = listen("nosuch.wav", "--out", tmp_path / "nowhere" / "events.tsv")
    assert result.exit_code == 1
    assert "there is no folder" in result.stderr
    assert "nosuch" not in result.stderr
