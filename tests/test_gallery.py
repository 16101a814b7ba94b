"""The gallery shows every figure there is, below code that runs as printed; ``docs/make_gallery.py`` draws it."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from attnviz import plots

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "gallery.md").read_text("utf-8")


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_gallery", DOCS / "make_gallery.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_figure_function_is_there(maker):
    functions = {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}
    pictures = {block.name: block.code for block in maker.blocks() if block.name}
    assert set(pictures) == functions
    for name, code in pictures.items():
        assert f"plots.{name}(" in code


def test_every_block_of_code_is_read(maker):
    assert len(maker.blocks()) == PAGE.count("```python") == PAGE.count("```") / 2
    assert len([block for block in maker.blocks() if block.name]) == PAGE.count("![")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what the listener hears beside the words of the prompt
def test_the_blocks_run_as_printed_in_an_empty_folder(maker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(mpl.rcParams)
    for block, value in maker.run(maker.blocks()):
        assert block.name is None or isinstance(value, Figure), block.code
    assert not list(tmp_path.iterdir())
    assert dict(mpl.rcParams) == before


def test_every_picture_is_there_whole_and_small():
    linked = re.findall(r"!\[[^\]]+\]\((gallery/[^)]+\.png)\)", PAGE)
    assert {DOCS / name for name in linked} == set((DOCS / "gallery").glob("*.png"))
    for name in linked:
        with Image.open(DOCS / name) as picture:
            picture.load()
            assert picture.width <= 1_100
            assert len(picture.convert("RGB").getcolors(2**24)) > 20  # not empty
    assert sum((DOCS / name).stat().st_size for name in linked) < 1.5e6


def test_the_readme_leads_there():
    assert "](docs/gallery.md)" in (DOCS.parent / "README.md").read_text("utf-8")
