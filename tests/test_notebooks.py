"""The notebooks run from their first cell to their last, write into runs/ alone, and are kept without outputs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
FIRST_FIGURE_SECONDS = 60

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


def test_the_six_are_there():
    assert NAMES == [
        "01_quickstart",
        "02_read_the_maps",
        "03_alignment",
        "04_real_audio",
        "05_manipulation",
        "06_paper_figures",
    ]


@notebooks
def test_it_is_valid_has_a_title_and_holds_no_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert re.match(r"# \d\. \S", book.cells[0].source)
    assert set(book.metadata) == {"kernelspec", "language_info"}
    for cell in book.cells:
        assert not cell.metadata
        assert cell.source.strip()
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@notebooks
def test_it_names_no_place_of_a_machine_and_its_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert not re.findall(r"(?<![\w.:/])(?:/(?:home|root|work|tmp|Users|mnt|opt)/|[A-Z]:\\)", text)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (FOLDER / target).is_file(), target


def test_recordings_are_small_and_attributed():
    clips = sorted((FOLDER / "audio").rglob("*.ogg"))
    attribution = (FOLDER / "audio" / "ATTRIBUTION.md").read_text("utf-8")
    assert clips
    for clip in clips:
        assert clip.stat().st_size < 100_000
        (row,) = (line for line in attribution.splitlines() if f"`{clip.parent.name}/{clip.name}`" in line)
        assert row.endswith("| CC0 |")
        assert clip.name[0] in "123"  # folds 4 and 5 are kept for tests


@notebooks
def test_it_runs(path, tmp_path, monkeypatch):
    # As from an activated environment: cells call the attnviz command.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "notebooks"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("runs", ".ipynb_checkpoints"))
    before = _files(tmp_path)
    book = nbformat.read(path, as_version=4)
    client = NotebookClient(book, timeout=300, kernel_name="python3", record_timing=True)
    client.execute(cwd=str(folder))
    written = {name for name in _files(tmp_path) - before if not name.is_relative_to(folder / "runs")}
    assert not written
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    drawn = [cell for cell in code if any("image/png" in one.get("data", {}) for one in cell.outputs)]
    assert drawn
    assert not [cell.source for cell in code if "<Figure size" in _plain(cell)]  # shown as a picture, not its name
    if path.stem == "01_quickstart":
        assert any("audio" in one.get("data", {}).get("text/html", "") for cell in code for one in cell.outputs)
        assert _ended(drawn[0]) - _began(code[0]) < FIRST_FIGURE_SECONDS


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _plain(cell: nbformat.NotebookNode) -> str:
    """Text of outputs that are nothing but text."""
    data = [one.get("data", {}) for one in cell.outputs]
    return " ".join(one["text/plain"] for one in data if set(one) == {"text/plain"})


def _began(cell: nbformat.NotebookNode) -> float:
    return _seconds(cell.metadata["execution"]["iopub.status.busy"])


def _ended(cell: nbformat.NotebookNode) -> float:
    return _seconds(cell.metadata["execution"]["iopub.status.idle"])


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
