"""Run the notebooks and store their outputs: ``python notebooks/execute.py [NAME ...]``, by default all of them.

Each notebook runs from its first cell to its last in an empty copy of this folder. It is stored with its outputs,
execution counts and a digest of its code, by which ``tests/test_notebooks.py`` finds outputs of other code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
DIGEST = "code_sha256"
"""Key of the digest in a notebook's metadata, under ``attnviz``."""

_PLAIN = {
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "TRANSFORMERS_VERBOSITY": "error",  # it writes to stderr where torchvision is not installed
    "TTY_COMPATIBLE": "0",  # commands of `!` write plain text
}
"""Environment of the cells: no codes of a terminal, no warnings of libraries."""

_PROGRESS = re.compile(r"^.*\d%\|.*\n?", re.MULTILINE)
_PLACE = re.compile(r"\S*ipykernel_\d+\S*:\d+: (?=\w+Warning: )")
"""Temporary file of a cell, before a warning of it."""


def notebooks() -> dict[str, Path]:
    """Return the notebooks by name, in order."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def code_digest(book: nbformat.NotebookNode) -> str:
    """Compute the SHA-256 of a notebook's code cells, in hexadecimal."""
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a copy of this folder.

    Parameters
    ----------
    path : Path
        The notebook.
    folder : Path
        Where the copy is made; it must not exist. What the cells write stays there.

    Returns
    -------
    NotebookNode
        With outputs and, in the metadata of each cell, the times at which it ran.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises an error.
    """
    shutil.copytree(
        FOLDER, folder, ignore=shutil.ignore_patterns("runs", ".ipynb_checkpoints", "__pycache__", "*.py")
    )
    # As from an activated environment: cells call the attnviz command.
    bin_folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    book = nbformat.read(path, as_version=4)
    client = NotebookClient(book, timeout=900, kernel_name="python3", record_timing=True, coalesce_streams=True)
    client.execute(cwd=str(folder), env={**os.environ, **_PLAIN, "PATH": bin_folder})
    return book


def stored(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what differs between runs (times, progress, places) from an executed notebook; record its digest."""
    for cell in book.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = _PLACE.sub("", _PROGRESS.sub("", output.text))
    book.metadata = {
        "attnviz": {DIGEST: code_digest(book)},
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.from_dict(book)


def main() -> None:
    """Execute the notebooks that are named and write them back."""
    available = notebooks()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(available)}")
    for name in parser.parse_args().names or available:
        if name not in available:
            parser.error(f"there is no notebook {name!r}; there are: {', '.join(available)}")
        with tempfile.TemporaryDirectory() as scratch:
            book = stored(executed(available[name], Path(scratch) / "notebooks"))
        nbformat.write(book, available[name])
        print(f"{name}: {available[name].stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
