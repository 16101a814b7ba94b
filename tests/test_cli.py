"""The command line: run folders written whole, errors in one line, nothing half-written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import attnviz
from attnviz.cli.app import app
from attnviz.cli.doctor import licence, recommendations
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.report.run_folder import is_run

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
    audio, rate = soundfile.read(folder / "audio.wav")
    assert f"Level in the loudest 0.4 s: audio.wav {loudest(audio, rate):.1f} dBFS" in result.output
    return folder


def loudest(audio, rate):
    """Level of the loudest 0.4 s in dBFS, over windows that begin at every 10 ms."""
    window, hop = round(0.4 * rate), rate // 100
    powers = [np.mean(audio[at : at + window] ** 2) for at in range(0, len(audio) - window + 1, hop)]
    return max(10 * np.log10(max(powers)), -120)


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
    assert record["levels_dbfs"] == {"audio.wav": pytest.approx(loudest(audio, rate), abs=0.1)}
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "The prompt '  ' is empty"),
        (["dog", "--duration", "-1"], "duration=-1: it must be a number of seconds above 0"),
        (["dog", "--duration", "nan"], "duration=nan"),
        (["dog", "--model", "no such folder"], "no folder"),
    ],
)
def test_what_needs_no_model_is_checked_before_one_is_announced(arguments, message, attnviz_command, tmp_path):
    result = attnviz_command("generate", *arguments, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Loading" not in result.stderr


def test_error_while_writing_leaves_nothing(adapter_checkpoint, attnviz_command, tmp_path, monkeypatch):
    from attnviz.report import run_folder as runs

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


def test_doctor_lists_every_recommendation_in_json_too():
    steps = {"generation": {"num_inference_steps": 25}, "style": {"num_inference_steps": 20}}
    assert dict(recommendations(RecommendedSettings(steps))) == {
        "recommended for generation": "num_inference_steps 25",
        "recommended for style": "num_inference_steps 20",
    }


def test_doctor_finds_the_fault(attnviz_command, tmp_path):
    result = attnviz_command("doctor", tmp_path)
    assert result.exit_code == 1
    assert "not an Auffusion checkpoint" in result.stderr


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


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense:\n- cc-by-4.0\n- mit\n---\n# Card", "cc-by-4.0, mit (from README.md)"),
        ("---\nlicense: other\nlicense_name: my-own\n---\n", "my-own (other) (from README.md)"),
        ("---\nlicense_name: my-own\nlicense: other\n---\n", "my-own (other) (from README.md)"),
        ("---\nlicense: mit\nlicense_name: my-own\n---\n", "mit (from README.md)"),
        ('---\nlicense: "mit"  # really\n---', "mit (from README.md)"),
        ("\ufeff---\r\nlicense: 'mit'\r\n---\r\n", "mit (from README.md)"),
        ("---\nlicense:\ntags: [audio]\n---\n", "not stated"),
        ("---\n---\n", "not stated"),
        ("---\n- license\n---\n", "not stated"),
        ("---\nlicense: [mit\n---\n", "not stated"),
        ("---\nmade: 2020-13-45\n---\n", "not stated"),
        ("---\ntitle: a\n--- license: mit", "not stated"),
    ],
)
def test_licence_of_a_model_card(card, expected, tmp_path):
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence(tmp_path).startswith(expected)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("{oops", "not stated"),
        ("[]", "not stated"),
        ("[" * 100_000, "not stated"),
        ('{"license": null}', "not stated"),
        ('{"license": ["mit"]}', "mit (from model_index.json)"),
    ],
)
def test_licence_of_a_model_index(index, expected, tmp_path):
    (tmp_path / "model_index.json").write_text(index)
    assert licence(tmp_path).startswith(expected)


def test_doctor_shows_what_was_found_before_the_fault(attnviz_command, tmp_path):
    folder = tmp_path / ("a long name " * 12 + "[red]")  # longer than a terminal is wide
    for part in ("text_encoder", "tokenizer"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text("{oops")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    result = attnviz_command("doctor", folder)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    found = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert found["folder"] == str(folder)
    assert found["layout"] == "plain"
    assert found["licence"] == "mit (from README.md)"
    assert "unet" in result.stderr


@pytest.mark.parametrize("option", ["--device=meta", "--device=", "--device=privateuseone", "--precision=int3"])
def test_doctor_refuses_a_place_to_compute_first(option, attnviz_command):
    result = attnviz_command("doctor", "nobody/nosuch", option)
    assert isinstance(result.exception, SystemExit)
    assert option.split("=")[0].strip("-") in result.stderr
    assert "nosuch" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dog", "--seed", 99999999999999999999], "seed"),
        (["dog", "--seed", 2**63], "seed"),
        (["dog", "--seed", -1], "seed"),
        (["dog", "--steps", 2_000_000_000], "steps"),
        (["dog", "--steps", 0], "steps"),
        (["dog", "--guidance", "nan"], "guidance"),
        (["dog", "--guidance", "-inf"], "guidance"),
        (["dog", "--device", "meta"], "device 'meta' cannot compute"),
        (["dog", "--device", "privateuseone"], "device 'privateuseone'"),
        (["dog", "--device", "quantum:1"], "device 'quantum:1'"),
        (["dog", "--precision", "int3"], "precision 'int3'"),
        (["dog", "--duration", 10_000], "milliseconds"),
        (["dog", "--duration", "nan"], "duration"),
        (["dog", "--keep", "step", "--keep", "time"], "keep=time"),
        ([""], "PromptError"),
        (["?! ... <>"], "has no word"),
        (["dog \udcff"], "not UTF-8"),
        (["dog", "--negative", "\udcff"], "negative prompt"),
    ],
)
def test_refused_before_a_model_is_looked_for(arguments, message, attnviz_command, tmp_path):
    result = attnviz_command("generate", *arguments, "--model", "nobody/nosuch", "--out", tmp_path / "run")
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert "nosuch" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_out_folder_is_refused_before_a_model_is_looked_for(attnviz_command, tmp_path):
    (tmp_path / "file").write_text("here")
    for out in (tmp_path, tmp_path / "file", tmp_path / "file" / "run", "", "~nobodyx/run"):
        result = attnviz_command("generate", "dog", "--model", "nobody/nosuch", "--out", out, "--overwrite")
        assert isinstance(result.exception, SystemExit)
        assert "OutputError" in result.stderr
        assert "nosuch" not in result.stderr


@pytest.mark.parametrize(
    ("steps", "message"),
    [(1000, "requires timestep 1000, but PNDMScheduler ends at 999"), (1, "No word of the prompt 'dog' has a")],
)
def test_refused_before_the_model_runs(steps, message, adapter_checkpoint, attnviz_command, tmp_path, monkeypatch):
    from attnviz.cli import jobs
    from attnviz.text import TokenTable

    monkeypatch.setattr(jobs.Generation, "run", lambda *_: pytest.fail("the model ran"))
    monkeypatch.setattr(TokenTable, "kept_words", [])  # as of a tokenizer that drops the prompt's characters
    result = attnviz_command(
        *("generate", "dog", "--model", adapter_checkpoint, "--out", tmp_path / "run", "--steps", steps)
    )
    assert isinstance(result.exception, SystemExit), result.exception
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("entries", "replaceable"),
    [
        ({}, True),
        ({"run.json": '{"attnviz": "0.1"}'}, True),
        ({"run.json": '{"attnviz": "0.1"}', "audio.wav": "", "events.tsv": "", "maps.zarr/a": ""}, False),
        ({"run.json": '{"attnviz": "0.1"}', "figures/holiday.png": ""}, False),
        ({"run.json": '{"attnviz": "0.1"}', "audio.wav": "", "events.tsv": ""}, True),
        ({"run.json": '{"attnviz": "0.1"}', "thesis.tex": ""}, False),
        ({"run.json": '{"attnviz": "0.1"}', "audio.wav/thesis.tex": ""}, False),
        ({"run.json": '{"experiment": 3}'}, False),
        ({"run.json": '["attnviz"]'}, False),
        ({"run.json": "attnviz"}, False),
        ({"run.json": "\x00\xff"}, False),
        ({"run.json/attnviz": ""}, False),
        ({"audio.wav": ""}, False),
    ],
)
def test_only_a_run_is_replaced(entries, replaceable, tmp_path):
    for name, content in entries.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, "latin-1")
    assert is_run(tmp_path) == replaceable


def test_overwriting(run, adapter_checkpoint, attnviz_command, tmp_path):
    assert is_run(run)
    arguments = ["--model", adapter_checkpoint, "--steps", 1, "--guidance", 1, "--overwrite"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "run.json").write_text("{}")
    result = attnviz_command("generate", "dog", *arguments, "--out", foreign)
    assert "is not replaced" in result.stderr
    assert (foreign / "run.json").read_text() == "{}"
    out = tmp_path / "[red]deep[" / ("a name longer than a terminal is wide " * 3)
    for prompt in ("dog", "rain"):
        result = attnviz_command("generate", prompt, *arguments, "--out", out)
        assert result.exit_code == 0, result.output
        assert any(line.startswith(f"Written to {out}: audio.wav, ") for line in result.stdout.splitlines())
    assert json.loads((out / "run.json").read_text("utf-8"))["prompt"] == "rain"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_run_json_never_holds_nan(run, tmp_path):
    from attnviz.errors import OutputError
    from attnviz.report.run_folder import save_run

    maps = attnviz.AttentionMaps.load(run / "maps.zarr")
    with pytest.raises(OutputError, match="finite numbers"):
        save_run(tmp_path / "run", np.zeros(160), np.zeros((256, 1024)), maps, {"guidance_scale": float("nan")})
    assert not list(tmp_path.iterdir())


def test_warnings_are_shown_and_recorded(adapter_checkpoint, attnviz_command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    arguments = ["--model", adapter_checkpoint, "--steps", 1, "--guidance", 1]
    prompt = "dog " + "incomprehensibilities" * 30  # one word of more tokens than fit
    result = attnviz_command("generate", prompt, *arguments, "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (warned,) = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["warnings"]
    assert f"Warning: {warned}" in result.stderr.splitlines()  # whole: not wrapped
    assert said["warnings"] == [warned]
    assert (said["run"], said["prompts"], said["complete"]) == (str(tmp_path / "run"), [prompt], True)


@pytest.mark.parametrize("asked_for", [False, True])
def test_warnings_are_shown_when_an_error_follows(asked_for, attnviz_command, tmp_path, monkeypatch):
    from attnviz.cli import jobs
    from attnviz.errors import CheckpointError, TruncationWarning

    def load(*_, **__):
        warnings.warn("words were cut off", TruncationWarning, stacklevel=1)
        warnings.warn("a library speaks", FutureWarning, stacklevel=1)
        raise CheckpointError("it is broken")

    monkeypatch.setattr(sys, "warnoptions", ["default"] if asked_for else [])
    monkeypatch.setattr(jobs, "load", load)
    monkeypatch.setattr(jobs, "find_published", lambda *_, **__: None)
    for command in (["generate", "dog", "--model", "some/model", "--out", tmp_path / "run"], ["doctor", tmp_path]):
        (tmp_path / "condition_config.json").touch()
        result = attnviz_command(*command)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert lines.index("Warning: words were cut off") < lines.index("CheckpointError: it is broken")
        assert ("a library speaks" in result.stderr) == asked_for


def test_help_does_not_wait_for_torch():
    code = "import sys, attnviz.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
