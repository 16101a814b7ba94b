"""The gallery shows every figure there is, with the code that drew it; ``docs/make_gallery.py`` makes it."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from PIL import Image

from attnviz import plots

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "gallery.md").read_text("utf-8")


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_gallery", DOCS / "make_gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_function_is_there(maker):
    functions = {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}
    assert set(maker.FIGURES) == functions
    for name, (_, _, code) in maker.FIGURES.items():
        assert code.startswith(f"plots.{name}(")


def test_the_page_has_the_code_that_drew_each_picture(maker):
    assert PAGE.startswith(maker.INTRODUCTION)
    for name, (title, seen, code) in maker.FIGURES.items():
        assert f"## {title}\n\n{seen}\n\n```python\n{code}\n```\n\n![{title}](gallery/{name}.png)" in PAGE


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
