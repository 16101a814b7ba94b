"""docs/corpus.md: the plan that it prints is read, and its commands parse."""

from __future__ import annotations

import shlex

import typer
from documentation import ROOT, blocks, commands

from attnviz.cli.app import app
from attnviz.corpus import read_plan

PAGE = ROOT / "docs" / "corpus.md"


def test_the_printed_plan_is_one(tmp_path):
    (printed,) = [block.text for block in blocks(PAGE) if block.language == "toml"]
    path = tmp_path / "birds.toml"
    path.write_text(printed)
    plan = read_plan(path)
    assert (plan.task, plan.score.events, plan.explain.timesteps) == ("explain", "file", (50, 200, 400))


def test_the_printed_commands_parse():
    (block,) = [block for block in blocks(PAGE) if block.language == "bash"]
    printed = [shlex.split(command, comments=True)[1:] for command in commands(block)]
    assert [words[1] for words in printed] == ["run", "run", "run", "status", "collect"]
    for words in printed:
        command = typer.main.get_command(app).commands["corpus"].commands[words[1]]
        command.make_context(words[1], words[2:])
