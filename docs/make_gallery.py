"""Draw the figures of docs/gallery.md from its code blocks: ``python docs/make_gallery.py``.

The blocks of the page run in order in an empty folder, and the value of the last line of a block is the figure
linked below it.
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
"""Width in pixels, the maximum of pages that show the gallery."""

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n!\[[^\]]+\]\(gallery/(?P<name>\w+)\.png\)\n)?", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of the page.

    Attributes
    ----------
    code : str
    name : str or None
        Name of the figure below it, or None.
    """

    code: str
    name: str | None


def blocks() -> list[Block]:
    """Read the blocks of the page in order."""
    return [Block(found["code"], found["name"]) for found in _BLOCK.finditer(PAGE.read_text("utf-8"))]


def run(listed: list[Block]) -> Iterator[tuple[Block, Any]]:
    """Run blocks in order in one namespace, and yield each block with the value of its last line."""
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
    """Draw all figures, and remove those that the page does not link."""
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    drawn = set()
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        for block, figure in run(blocks()):
            if block.name is None:
                continue
            if not isinstance(figure, Figure):
                raise TypeError(f"the block above {block.name}.png ends in {figure!r}, which is not a figure")
            dpi = min(100.0, WIDEST / figure.get_figwidth())
            with mpl.rc_context({"savefig.bbox": "tight"}):  # notes outside the axes are part of the figure
                figure.savefig(folder / f"{block.name}.png", dpi=dpi, metadata={"Software": None})
            drawn.add(block.name)
    for stale in folder.glob("*.png"):
        if stale.stem not in drawn:
            stale.unlink()


if __name__ == "__main__":
    main()
