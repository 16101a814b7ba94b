"""The rooms of the package: their imports form no cycle, and each says what enters and what leaves."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import attnviz

PACKAGE = Path(attnviz.__file__).parent
#: The package itself resolves its public names on first use, from every room.
FRONT = "__init__"


def imports_of(source: str) -> set[str]:
    """Return the rooms that a module imports, also within functions, but not for annotations only."""
    tree = ast.parse(source)
    annotations = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "attnviz":
            names = [f"attnviz.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("attnviz.")}
    return {room for room in found if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()}


def graph_of(sources: dict[str, list[str]]) -> dict[str, set[str]]:
    graph = defaultdict(set)
    for room, texts in sources.items():
        for text in texts:
            graph[room] |= imports_of(text) - {room}
    return graph


def rooms() -> dict[str, list[str]]:
    sources = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != FRONT:
            sources[room].append(path.read_text("utf-8"))
    return sources


def test_imports_form_no_cycle():
    TopologicalSorter(graph_of(rooms())).prepare()


def test_a_cycle_is_found_also_where_a_function_closes_it():
    sources = rooms()
    sources["maps"].append("def explore():\n    from attnviz.report import explore\n")
    with pytest.raises(CycleError):
        TopologicalSorter(graph_of(sources)).prepare()


def test_nothing_imports_the_command_line():
    graph = graph_of(rooms())
    assert {room for room in graph if "cli" in graph[room]} == {"__main__"}


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_each_room_says_what_it_is(room):
    assert importlib.import_module(f"attnviz.{room}").__doc__


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_is_longer_than_600_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 600
