"""The notebooks are stored with outputs of their present code, and run from their first cell to their last.

``notebooks/execute.py`` stores outputs with a digest of the code; these tests hold notebook and digest together.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
from datetime import datetime
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
LARGEST = 2.5e6
"""Bytes; hosts show no larger notebooks."""
FIRST_FIGURE_SECONDS = 60
PLACE = r"(?<![\w.:/<])(?:/(?:home|root|work|tmp|Users|mnt|opt|usr|var)/|[A-Z]:\\\\?[A-Za-z])"

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def faults(book: nbformat.NotebookNode, runner) -> list[str]:
    """What keeps a notebook from being read where it is stored."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    found = []
    if book.metadata.get("attnviz", {}).get(runner.DIGEST) != runner.code_digest(book):
        found.append("the outputs are of other code: python notebooks/execute.py")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("cells were left out, or run in another order")
    outputs = [output for cell in code for output in cell.outputs]
    if not any("image/png" in output.get("data", {}) for output in outputs):
        found.append("no picture is stored")
    found += [f"error: {output.ename}" for output in outputs if output.output_type == "error"]
    found += [f"stderr: {output.text}" for output in outputs if output.get("name") == "stderr"]
    texts = [cell.source for cell in book.cells] + [text for output in outputs for text in _texts(output)]
    found += [f"a place of a machine: {text[:200]}" for text in texts if re.search(PLACE, text)]
    found += [f"a progress bar: {text[:200]}" for text in texts if re.search(r"\x1b\[|\d%\|| it/s", text)]
    plain = [output.data["text/plain"] for output in outputs if set(output.get("data", ())) == {"text/plain"}]
    found += [f"a picture's name: {text}" for text in plain if text.startswith("<Figure size")]
    if any(cell.metadata for cell in book.cells) or set(book.metadata) != {
        "attnviz",
        "kernelspec",
        "language_info",
    }:
        found.append("metadata of a machine or of an editor")
    return found


def test_the_eight_are_there():
    assert NAMES == [
        "01_quickstart",
        "02_read_the_maps",
        "03_alignment",
        "04_real_audio",
        "05_manipulation",
        "06_paper_figures",
        "07_your_own_model",
        "08_is_attention_the_explanation",
    ]


@notebooks
def test_it_is_stored_with_the_outputs_of_its_code(path, runner):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert not faults(book, runner)
    assert re.match(r"# \d\. \S", book.cells[0].source)
    assert all(cell.source.strip() for cell in book.cells)
    assert path.stat().st_size < LARGEST


def test_what_is_planted_is_found(runner):
    good = nbformat.read(NOTEBOOKS[0], as_version=4)
    first = next(index for index, cell in enumerate(good.cells) if cell.cell_type == "code")

    def planted(change) -> list[str]:
        book = copy.deepcopy(good)
        change(book, book.cells[first])
        return faults(book, runner)

    def stream(name, text):
        return nbformat.v4.new_output("stream", name=name, text=text)

    assert not planted(lambda book, cell: None)
    (stale,) = planted(lambda book, cell: cell.update(source=cell.source + "\nseed = 1"))
    assert "other code" in stale
    assert planted(lambda book, cell: book.cells.remove(cell))
    assert planted(lambda book, cell: cell.update(execution_count=7))
    assert planted(lambda book, cell: cell.outputs.append(stream("stderr", "UserWarning: x")))
    assert planted(lambda book, cell: cell.outputs.append(stream("stdout", "saved in /home/me/runs")))
    assert planted(lambda book, cell: cell.outputs.append(stream("stdout", "\x1b[2K 40%|####")))
    unseen = nbformat.v4.new_output("display_data", data={"text/plain": "<Figure size 10x10 with 1 Axes>"})
    assert planted(lambda book, cell: cell.outputs.append(unseen))
    assert planted(lambda book, cell: cell.metadata.update(execution={"iopub.status.busy": "2026"}))
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    assert planted(lambda book, cell: cell.outputs.append(error))
    assert planted(lambda book, cell: [one.update(outputs=[]) for one in book.cells if "outputs" in one])


def test_text_may_change_without_running_the_code_again(runner):
    book = nbformat.read(NOTEBOOKS[0], as_version=4)
    book.cells[0].source += " A sentence more."
    assert not faults(book, runner)


@notebooks
def test_its_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
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


@pytest.mark.slow
@notebooks
def test_it_runs(path, tmp_path, runner):
    folder = tmp_path / "notebooks"
    book = runner.executed(path, folder)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    if path.stem == "01_quickstart":
        drawn = next(cell for cell in code if any("image/png" in one.get("data", {}) for one in cell.outputs))
        assert _at(drawn, "idle") - _at(code[0], "busy") < FIRST_FIGURE_SECONDS
    if path.stem in {"01_quickstart", "05_manipulation"}:
        assert any("<audio" in text for cell in code for one in cell.outputs for text in _texts(one))
    assert not faults(runner.stored(book), runner)
    written = {name.relative_to(folder) for name in _files(tmp_path)}
    assert {name for name in written if name.parts[0] != "runs"} == {
        name.relative_to(FOLDER)
        for name in _files(FOLDER)
        if name.relative_to(FOLDER).parts[0] not in {"runs", ".ipynb_checkpoints", "__pycache__"}
        and name.suffix != ".py"
    }


def _at(cell: nbformat.NotebookNode, state: str) -> float:
    return datetime.fromisoformat(cell.metadata["execution"][f"iopub.status.{state}"]).timestamp()


def _texts(output: nbformat.NotebookNode) -> list[str]:
    """Texts of an output, without what is embedded in it (sound, pictures)."""
    data = output.get("data", {})
    texts = [output.get("text", ""), *(text for kind, text in data.items() if kind.startswith("text/"))]
    texts += [json.dumps(content) for kind, content in data.items() if kind == "application/json"]
    return [re.sub(r"base64,[\w+/=\s]+", "", text) for text in texts]


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
