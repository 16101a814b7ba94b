"""The README's commands and Python blocks run in order, as printed, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib as mpl
import pytest
import typer
from documentation import ROOT, blocks, check_setup, commands, run_page

from attnviz.cli.app import app
from attnviz.testing import write_adapter_checkpoint, write_plain_checkpoint

PAGES = [ROOT / "README.md", ROOT / "docs" / "training.md", ROOT / "docs" / "encoders.md"]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb"),
                ROOT / "attnviz" / "bundled" / "README.md", ROOT / "benchmarks" / "README.md"])  # fmt: skip


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Path:
    """A hub's local cache with tiny checkpoints under the published names."""
    cache = tmp_path_factory.mktemp("hub")
    for name, write in (
        ("auffusion", write_adapter_checkpoint),
        ("auffusion-full-no-adapter", write_plain_checkpoint),
    ):
        folder = cache / f"models--auffusion--{name}"
        write(folder / "snapshots" / ("0" * 40))
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
    return cache


@pytest.mark.slow
def test_every_block_runs_in_order_in_an_empty_folder(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    before = dict(mpl.rcParams)
    scope = run_page(ROOT / "README.md", tmp_path, hub)
    assert dict(mpl.rcParams) == before
    assert scope["heat"].dims == ("freq", "time")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_two_commands_write_to_one_place(page):
    places = [
        place
        for block in blocks(page)
        if block.language == "bash"
        for command in commands(block)
        if "--overwrite" not in command
        for place in re.findall(r"--out (\S+)", command)
    ]
    assert len(places) == len(set(places)), places


def test_what_is_drawn_has_a_seed():
    """A result of an unseeded generator cannot be measured: it may be silent for the next reader."""
    code = "".join(block.text for block in blocks(PAGES[0]) if block.language == "python")
    calls = re.findall(r"^.*\b(?:pipe|style|inpaint)\(\".*$", code, re.MULTILINE)
    assert len(calls) == 3
    assert all("generator=" in call for call in calls), calls


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_text_names_what_is_not_there(path):
    text = path.read_text("utf-8").replace('\\"', '"')
    assert 'pip install "attnviz' not in text  # nothing is published
    for command in re.findall(r"attnviz edit (?:swap|refine|reweight) [^`\n]*", text):
        assert "--audio" not in command, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_are_printed(page):
    printed = [
        shlex.split(command, comments=True)
        for block in blocks(page)
        if block.language == "bash"
        for command in commands(block)
    ]
    ours = [words[1:] for words in printed if words[0] == "attnviz"]
    assert ours
    for words in ours:
        command, rest = typer.main.get_command(app), words
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[0], list(rest))  # raises click's own error where it cannot be parsed


@pytest.mark.parametrize(
    "command",
    ["make nothing", "pip install -c nowhere.txt -e .", 'pip install -c constraints.txt -e ".[nothing]"'],
)
def test_a_setup_command_that_names_what_is_not_there_is_found(command):
    with pytest.raises(AssertionError):
        check_setup(command)
