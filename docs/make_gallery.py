"""Draw the pictures of docs/gallery.md from the code that stands there: ``python docs/make_gallery.py``.

The page is the source: its blocks run in order, in an empty folder, and the value of a block's last line is the
figure that is linked below it.
"""

from __future__ import annotations

import ast
import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
PAGE = DOCS / "gallery.md"
WIDEST = 1000
"""Pixels; the pages that show the gallery are not wider."""

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n!\[[^\]]+\]\(gallery/(?P<name>\w+)\.png\)\n)?", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code of the page.

    Attributes
    ----------
    code : str
    name : str or None
        Of the picture below it; None where there is none.
    """

    code: str
    name: str | None


def blocks() -> list[Block]:
    """Read the blocks of the page, in order."""
    return [Block(found["code"], found["name"]) for found in _BLOCK.finditer(PAGE.read_text("utf-8"))]


def run(listed: list[Block]) -> Iterator[tuple[Block, Any]]:
    """Run blocks one after another in one namespace, and give the value of each one's last line."""
    names: dict[str, Any] = {}
    for number, block in enumerate(listed):
        tree = ast.parse(block.code, f"gallery.md, block {number + 1}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"gallery.md, block {number + 1}", "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"gallery.md, block {number + 1}", "eval"), names)
        yield block, value


def main() -> None:
    """Draw the pictures anew; one that the page no longer links goes."""
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    drawn = set()
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        for block, figure in run(blocks()):
            if block.name is None:
                continue
            if not isinstance(figure, Figure):
                raise TypeError(f"the block above {block.name}.png ends in {figure!r}, which is no figure")
            dpi = min(100.0, WIDEST / figure.get_figwidth())
            with mpl.rc_context({"savefig.bbox": "tight"}):  # notes beyond the axes are part of the picture
                figure.savefig(folder / f"{block.name}.png", dpi=dpi, metadata={"Software": None})
            drawn.add(block.name)
    for stale in folder.glob("*.png"):
        if stale.stem not in drawn:
            stale.unlink()


if __name__ == "__main__":
    main()
