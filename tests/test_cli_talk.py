"""How every command talks: quiet, as JSON, at once, in words and not in Python, and to a shell that completes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time

import pytest
import typer
from report.report_runs import small_maps, write_run
from typer.testing import CliRunner

from attnviz.cli.app import app
from attnviz.cli.terminal import complain, in_options
from attnviz.training.config import CONFIGS


def leaves(command, words=()):
    if hasattr(command, "commands"):
        for name, one in command.commands.items():
            yield from leaves(one, (*words, name))
    else:
        yield words, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", small_maps())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_can_be_quiet_and_speak_json(words):
    options = {flag for parameter in COMMANDS[words].params for flag in parameter.opts}
    assert {"--quiet", "-q", "--json"} <= options


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_at_80_columns_cuts_no_name_and_wraps_as_written(words):
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output
    assert "…" not in shown
    assert "[[" not in shown
    assert all(
        flag in shown for parameter in COMMANDS[words].params for flag in parameter.opts if flag[:2] == "--"
    )
    if "--model" in shown and words != ("listen",):
        assert "facebook/musicgen-small" in shown
    # Each line is filled: the first word of the next line of a paragraph would not have fitted.
    lines = shown.split("\nOptions:")[0].split("\nArguments:")[0].splitlines()
    for one, other in itertools.pairwise(lines):
        if one.startswith("  ") and not one.endswith(".") and other.startswith("  "):
            assert len(one) + 1 + len(other.split()[0]) > 78, one


@pytest.mark.parametrize(
    "words", sorted({words[:-1] for words in COMMANDS}), ids=lambda words: " ".join(words) or "attnviz"
)
def test_lists_of_commands_cut_no_sentence(words):
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output
    listed = shown.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert len(listed) >= 1
    assert all(line.endswith(".") and not line.endswith("...") for line in listed), listed


def test_results_and_refusals_are_one_json_object(run, tmp_path):
    result = invoke("diagnose", run, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["run"], said["warnings"]) == (str(run), [])
    assert {"finding", "found", "value", "threshold"} <= set(said["findings"][0])
    result = invoke("diagnose", tmp_path / "nosuch", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "AttnVizError"
    assert "AttnVizError" in result.stderr


def test_a_quiet_command_says_nothing_but_errors(run, tmp_path):
    result = invoke("diagnose", run, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    result = invoke("diagnose", tmp_path / "nosuch", "-q")
    assert result.stdout == ""
    assert "not a run folder" in result.stderr


def test_diagnose_says_what_was_found(run):
    result = invoke("diagnose", run)
    assert result.exit_code == 0, result.output
    assert "of 11 kinds were judged" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "a dog"),
        ("explain", "nosuch.wav", "a dog"),
        ("edit", "swap", "a dog", "a cat"),
        ("listen", "x.wav"),
    ],
    ids=" ".join,
)
def test_a_place_that_is_taken_is_refused_before_anything_is_imported(command, run):
    code = f"""
import sys
from attnviz.cli.app import app
try:
    app({[*command, "--out", str(run)]!r})
except SystemExit as end:
    sys.exit(f"{{end.code}} {{sorted({{'torch', 'pandas', 'matplotlib'}} & set(sys.modules))}}")
"""
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == "1 []"
    assert "exists already" in ended.stderr
    assert "--overwrite" in ended.stderr
    assert time.monotonic() - start < 30  # the import of PyTorch alone may take longer


def test_something_is_said_before_the_long_imports(tmp_path):
    """The first line comes while PyTorch is not imported yet."""
    code = """
import sys
from attnviz.cli import terminal
terminal.quieten_libraries = lambda: sys.exit(f"then {'torch' in sys.modules}")
from attnviz.cli.commands import running
running.quieten_libraries = terminal.quieten_libraries
from attnviz.cli.app import app
app(["generate", "a dog", "--out", "run"])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ended.stderr.splitlines() == ["Loading PyTorch and the model ...", "then False"]


REFUSED = {
    ("explain", "clip"): ("explain", "nosuch.wav", "a dog", "--out", "new"),
    ("explain", "events"): ("explain", "CLIP", "a dog", "--events", "nosuch.tsv", "--out", "new"),
    ("listen", "clip"): ("listen", "nosuch.wav"),
    ("align", "run"): ("align", "nosuch"),
    ("align", "events"): ("align", "RUN", "--events", "nosuch.tsv"),
    ("report", "run"): ("report", "nosuch"),
    ("report", "other"): ("report", "RUN", "nosuch"),
    ("figures", "runs"): ("figures", "RUN", "nosuch", "--out", "new"),
    ("diagnose", "run"): ("diagnose", "nosuch"),
    ("swap", "clip"): ("edit", "swap", "a dog", "a cat", "--clip", "nosuch.wav", "--out", "new"),
    ("refine", "clip"): ("edit", "refine", "a dog", "a big dog", "--clip", "nosuch.wav", "--out", "new"),
    ("reweight", "clip"): ("edit", "reweight", "a dog", "-w", "dog=2", "--clip", "nosuch.wav", "--out", "new"),
    ("inpaint", "clip"): ("edit", "inpaint", "nosuch.wav", "a dog", "--span", 1, 2, "--out", "new"),
    ("style", "clip"): ("edit", "style", "nosuch.wav", "a dog", "--out", "new"),
    ("evaluate", "runs"): ("evaluate", "RUN", "nosuch"),
    ("evaluate", "reference"): ("evaluate", "RUN", "--reference", "nosuch"),
    ("evaluate", "cache"): ("evaluate", "RUN", "--cache", "CLIP"),
    ("generate", "model"): ("generate", "a dog", "--model", "/no/such", "--out", "new"),
    ("explain", "model"): ("explain", "CLIP", "a dog", "--model", "/no/such", "--out", "new"),
    ("doctor", "model"): ("doctor", "/no/such"),
    ("swap", "model"): ("edit", "swap", "a dog", "a cat", "--model", "/no/such", "--out", "new"),
    ("refine", "model"): ("edit", "refine", "a dog", "a big dog", "--model", "/no/such", "--out", "new"),
    ("reweight", "model"): ("edit", "reweight", "a dog", "-w", "dog=2", "--model", "/no/such", "--out", "new"),
    ("inpaint", "model"): (
        "edit",
        "inpaint",
        "CLIP",
        "a dog",
        "--span",
        1,
        2,
        "--model",
        "/no/such",
        "--out",
        "new",
    ),
    ("style", "model"): ("edit", "style", "CLIP", "a dog", "--model", "/no/such", "--out", "new"),
    ("listen", "model"): ("listen", "CLIP", "--model", "/no/such"),
    ("solo", "run"): ("solo", "nosuch", "a dog"),
    ("run", "plan"): ("corpus", "run", "nosuch.toml", "--out", "new"),
    ("status", "folder"): ("corpus", "status", "nosuch"),
    ("collect", "folder"): ("corpus", "collect", "nosuch", "--out", "new.parquet"),
    ("esc10", "source"): ("data", "esc10", "new", "--from", "nosuch"),
}
"""A command that lacks each input, by the command and its parameter."""
MALFORMED = {
    "weight": ("edit", "swap", "a dog", "a cat", "-w", "dog", "--out", "new"),
    "no weight": ("edit", "reweight", "a dog", "--out", "new"),
    "cross-steps": ("edit", "refine", "a dog", "a big dog", "--cross-steps", "dog", "--out", "new"),
    "precision": ("generate", "a dog", "--precision", "int3", "--out", "new"),
    "precision of doctor": ("doctor", "--precision", "int3"),
    "keep": ("generate", "a dog", "--keep", "time", "--out", "new"),
    "listen and events": ("align", "RUN", "--listen", "--events", "CLIP"),
    "runs without a folder": ("figures", "RUN", "CLIP"),
}


def test_every_input_has_a_refusal_here():
    """Files, folders and checkpoints that commands read; trainings aside."""
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    found = {
        (one.callback.__name__, name)
        for group in groups
        for one in group.registered_commands
        for name, hint in one.callback.__annotations__.items()
        if ("Path" in str(hint) and name != "out") or name == "model"
        if one.callback.__name__ not in ("train", "bundle", "clean")
    }
    assert found == set(REFUSED)


@pytest.mark.parametrize(
    "arguments", [*REFUSED.values(), *MALFORMED.values()], ids=lambda one: " ".join(map(str, one))
)
def test_a_slip_is_refused_before_loading_begins(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": tmp_path / "run", "CLIP": tmp_path / "clip.wav"}
    places["RUN"].mkdir()
    (places["RUN"] / "run.json").write_text('{"attnviz": "0.1"}')
    places["CLIP"].write_bytes(b"RIFF")
    result = invoke(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Error: " in result.stderr
    assert "..." not in result.stderr.replace("...]", "")  # what begins is announced with dots
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.wav", "run"]


def test_quiet_and_json_are_taken_before_and_after_the_command(run):
    after = invoke("edit", "swap", "a dog", "a cat", "--out", run, "--json")
    assert json.loads(after.stdout)["error"] == "OutputError"
    for arguments in (("--json", "edit", "swap"), ("edit", "--json", "swap")):
        assert invoke(*arguments, "a dog", "a cat", "--out", run).stdout == after.stdout
    assert (invoke("-q", "diagnose", run).stdout, invoke("diagnose", run, "-q").stdout) == ("", "")
    assert "Missing command" in invoke("-q").stderr


def test_messages_have_options_and_no_python():
    said = in_options(
        "Trace with keep=('step',) to store them. The readout needs heads; trace with keep=('head',). "
        "Use readout='mean' or a layer. One branch; trace with branch='both'."
    )
    assert said == (
        "Trace with --keep step of attnviz generate or explain to store them. The readout needs heads; trace with "
        "--keep head of attnviz generate or explain. Use --readout mean or a layer. One branch; in Python, trace "
        "with branch='both'."
    )


def test_help_lists_what_can_be_chosen():
    for command in ("align", "solo"):
        readouts = invoke(command, "--help").stdout
        assert all(name in readouts for name in ("mean", "auffusion", "fitted", "sharp", "layer"))
    configs = " ".join(invoke("train", "--help").stdout.replace("-\n", "-").split()).replace("- ", "-")
    assert all(path.stem in configs for path in CONFIGS.glob("*.toml"))


def test_a_shell_completes_readouts(monkeypatch):
    monkeypatch.setenv("_ATTNVIZ_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "attnviz align run --readout f")
    monkeypatch.setenv("COMP_CWORD", "4")
    result = CliRunner().invoke(app, [], prog_name="attnviz")
    assert result.stdout.split() == ["fitted"]


def test_lists_are_shown_in_words(capsys):
    complain("Error", "it knows ['rain', \"dog's\"] and ('a',), not [1, 2] or (a 'b')", "red")
    assert capsys.readouterr().err == "Error: it knows 'rain', \"dog's\" and 'a', not [1, 2] or (a 'b')\n"
