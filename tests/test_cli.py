"""The command line: run folders written whole, errors in one line, nothing half-written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import attnviz
from attnviz.cli import app
from attnviz.jobs import licence

PROMPT = 'a dog "barks" & <b>then</b> rain — falls 🐕'


@pytest.fixture
def attnviz_command():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(adapter_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "deep" / "dog"
    settings = [
        "--steps",
        1,
        "--seed",
        3,
        "--guidance",
        1,
        "--duration",
        9.5,
        "--special-tokens",
        "--keep",
        "step",
    ]
    arguments = ["generate", PROMPT, "--model", adapter_checkpoint, "--out", folder, *settings]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "16 (32 x 128" in result.output
    return folder


def test_run_folder_is_whole(run, adapter_checkpoint):
    assert sorted(path.name for path in run.iterdir()) == [
        "audio.wav",
        "maps.zarr",
        "run.json",
        "spectrogram.npz",
        "spectrogram.png",
        "tokens.csv",
        "words.png",
    ]
    assert [path.name for path in run.parent.iterdir()] == ["dog"]  # no temporary folder is left
    record = json.loads((run / "run.json").read_text("utf-8"))
    assert (record["prompt"], record["seed"], record["complete"]) == (PROMPT, 3, True)
    assert record["provenance"]["model"] == str(adapter_checkpoint)
    audio, rate = soundfile.read(run / "audio.wav")
    assert (audio.shape, rate) == ((152_000,), 16_000)
    assert 0 < np.abs(audio).max() <= 1
    maps = attnviz.AttentionMaps.load(run / "maps.zarr")
    assert maps.heatmap("barks").shape == (32, 128)
    assert maps["mid_block.attentions.0"].sizes["step"] == 1
    with np.load(run / "spectrogram.npz") as saved:
        assert saved["log_mel"].shape == (256, 1024)
        assert saved["freq"].shape == (256,)
        assert np.all(np.diff(saved["freq"]) > 0)
        assert saved["padding"].sum() == 74
    rows = list(csv.DictReader((run / "tokens.csv").open(encoding="utf-8")))
    assert len(rows) == 77
    assert {row["kind"] for row in rows} == {"start", "text", "end", "padding"}


def test_existing_run_is_refused_and_kept(run, adapter_checkpoint, attnviz_command):
    before = (run / "run.json").read_bytes()
    result = attnviz_command("generate", "rain", "--model", adapter_checkpoint, "--out", run)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "--model", "MODEL"], "PromptError"),
        (["dog", "--model", "no such folder"], "no folder"),
        (["dog", "--model", "MODEL", "--duration", "10000"], "milliseconds"),
        (["dog", "--model", "MODEL", "--precision", "int3"], "bfloat16"),
        (["dog", "--model", "MODEL", "--device", "quantum"], "quantum"),
        (["dog", "--model", "MODEL", "--keep", "time"], "keep"),
    ],
)
def test_bad_requests_write_nothing(arguments, message, adapter_checkpoint, attnviz_command, tmp_path):
    arguments = [adapter_checkpoint if argument == "MODEL" else argument for argument in arguments]
    result = attnviz_command("generate", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_error_while_writing_leaves_nothing(adapter_checkpoint, attnviz_command, tmp_path, monkeypatch):
    from attnviz import runs

    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_wav", disk_full)
    result = attnviz_command(
        *("generate", "dog", "--model", adapter_checkpoint, "--steps", 1, "--guidance", 1),
        *("--out", tmp_path / "run"),
    )
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert not list(tmp_path.iterdir())


def test_doctor(adapter_checkpoint, attnviz_command):
    result = attnviz_command("doctor", adapter_checkpoint)
    assert result.exit_code == 0, result.output
    for expected in ("adapter", "not stated", "16 cross-attention layers", "32 x 128", "This checkpoint works."):
        assert expected in result.output


def test_doctor_finds_the_fault(attnviz_command, tmp_path):
    result = attnviz_command("doctor", tmp_path)
    assert result.exit_code == 1
    assert "no Auffusion checkpoint" in result.stderr


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("README.md", "---\ntags: [audio]\nlicense: cc-by-nc-sa-4.0\n---\n# Card", "cc-by-nc-sa-4.0"),
        ("README.md", "# no front matter\nlicense: mit", "not stated"),
        ("LICENSE", "MIT License\n\nCopyright", "MIT License"),
        ("LICENSE", "", "empty"),
    ],
)
def test_licence(file, content, expected, tmp_path):
    (tmp_path / file).write_text(content)
    assert expected in licence(tmp_path)


def test_help_does_not_wait_for_torch():
    code = "import sys, attnviz.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
