"""Run the blocks of a Markdown page in order, as a reader would, in an empty folder."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Commands that set up an environment; they are checked against the checkout, not run.
SETUP = ("pip ", "make ", "git ", "cd ", "python -m venv ", ". .venv/")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it starts at."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    pattern = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [Block(found[1], found[2], text[: found.start()].count("\n") + 1) for found in pattern.finditer(text)]


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of a shell block; a trailing comment stays, the shell ignores it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def run_page(page: Path, folder: Path, hub: Path) -> dict[str, object]:
    """Run every ``bash`` and ``python`` block of a page in `folder`; Python blocks share one namespace.

    Parameters
    ----------
    page : Path
        Markdown.
    folder : Path
        Where the commands run.
    hub : Path
        Local cache of the Hugging Face hub, the only place that hub names are looked up in.

    Returns
    -------
    dict
        The namespace after the last Python block.
    """
    scope: dict[str, object] = {"__name__": "__main__"}
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_CACHE": str(hub),
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }
    for block in blocks(page):
        if block.language == "bash":
            for command in commands(block):
                if command.startswith(SETUP):
                    check_setup(command)
                else:
                    run_command(command, folder, environment, f"{page.name}:{block.line}")
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), scope)
        elif block.language not in {"text", "toml", "json", "bibtex"}:
            raise AssertionError(
                f"{page.name}:{block.line}: a block of {block.language or 'no language'} is not run"
            )
    return scope


def run_command(command: str, folder: Path, environment: dict[str, str], where: str) -> None:
    """Run one command as printed; it must end with status 0."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr, f"{where}: {command}\n{done.stderr[-4000:]}"
    if "auffusion/" not in command:  # the hub's names stand for tiny checkpoints of random weights
        for fault in ("cannot be heard", "is clipped"):
            assert fault not in done.stderr, f"{where}: {command}\n{done.stderr[-4000:]}"


def check_setup(command: str) -> None:
    """Check that what a command of the installation names exists in the checkout."""
    words = command.split("#", maxsplit=1)[0].split()
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), command
    if words[0] == "pip":
        named = [after for before, after in itertools.pairwise(words) if before in {"-c", "-r"}]
        assert all((ROOT / name).is_file() for name in named), command
        extras = re.findall(r"\[([\w,-]+)\]", command)
        project = (ROOT / "pyproject.toml").read_text("utf-8")
        for name in ",".join(extras).split(","):
            assert not name or re.search(rf"^{name} = \[", project, re.MULTILINE), command
