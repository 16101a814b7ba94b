"""Which folders are ours to replace: those that say so in a file of ours, and hold only what we wrote.

A folder that attnviz writes holds ``attnviz.json``: its kind, and every file in it. Run folders say it in
``run.json``, whose files have fixed names, and maps in the attributes of their zarr store, which list every array.
Any other file is somebody else's, and a folder that holds one is neither replaced nor removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from attnviz.errors import AttnVizError
from attnviz.io.json_files import as_json, parse_json, read_json
from attnviz.io.leftovers import as_leftover

MANIFEST = "attnviz.json"
_VERSION = 1
_ZARR = "zarr.json"
_FURNITURE = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # which desktops put everywhere

Ours = Callable[[str], bool]
"""Says of a file, by its path in the folder with ``/``, whether attnviz wrote it."""


def _never(folder: Path) -> bool:
    return False


@dataclass(frozen=True)
class Kind:
    """A kind of folder that attnviz writes.

    Attributes
    ----------
    name : str
        What its ``attnviz.json`` calls it.
    signed : callable
        Says whether a folder without ``attnviz.json`` is of this kind by another file of ours.
    names : str
        Regular expression of the paths that files in such a folder have.
    manifest : bool
        Whether ``attnviz.json`` is written; False for folders that the other file is always in.
    """

    name: str
    signed: Callable[[Path], bool] = _never
    names: str = ""
    manifest: bool = True


def sign(folder: Path, kind: Kind) -> None:
    """Write the ``attnviz.json`` of a folder that is finished."""
    if kind.manifest:
        listed = [path.relative_to(folder).as_posix() for path in _files(folder)]
        content = {"attnviz": _VERSION, "kind": kind.name, "files": [name for name in listed if name != MANIFEST]}
        (folder / MANIFEST).write_bytes(as_json(content, MANIFEST))


def why_not_ours(folder: Path, kind: Kind) -> str | None:
    """Return why a folder may not be replaced by one of a kind, or None if it is empty or entirely ours."""
    if not folder.is_dir():
        return "is a file and not a folder"
    if not any(folder.iterdir()):
        return None
    written = _manifest(folder)
    if written is not None:
        if written["kind"] != kind.name:
            return f"is of another kind: attnviz wrote it as {written['kind']!r}, and this is {kind.name!r}"
        ours: Ours = frozenset(written["files"]).__contains__
    elif kind.signed(folder):
        names = re.compile(kind.names)

        def ours(name: str) -> bool:
            return names.fullmatch(name) is not None

    else:
        return "holds no file that says that attnviz wrote it"
    strange = next(_strangers(folder, ours), None)
    return None if strange is None else f"holds {strange}, which attnviz did not write"


def is_store(folder: Path) -> bool:
    """Whether a folder is empty, or a zarr store of attnviz without other files."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    ours = _store(folder)
    return ours is not None and next(_strangers(folder, ours), None) is None


def _strangers(folder: Path, ours: Ours, inside: str = "") -> Iterator[str]:
    """Yield the files that attnviz did not write, by their path in the folder that is asked about."""
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        name, path = f"{inside}{entry.name}", Path(entry.path)
        if entry.name in (*_FURNITURE, MANIFEST):
            continue
        if (leftover := as_leftover(path)) is not None and leftover.dead:
            continue
        if not entry.is_dir(follow_symlinks=False):
            if not ours(name):
                yield name
        elif (own := _signature(path)) is not None:
            yield from (f"{name}/{strange}" for strange in _strangers(path, own))
        else:
            yield from _strangers(path, ours, f"{name}/")


def _signature(folder: Path) -> Ours | None:
    """Return what is ours in a folder that says so itself; None where it does not."""
    written = _manifest(folder)
    return _store(folder) if written is None else frozenset(written["files"]).__contains__


def _manifest(folder: Path) -> dict[str, Any] | None:
    content = _object(folder / MANIFEST)
    files = content.get("files")
    known = content.get("attnviz") == _VERSION and isinstance(content.get("kind"), str)
    return content if known and isinstance(files, list) and all(isinstance(one, str) for one in files) else None


def _store(folder: Path) -> Ours | None:
    attributes = _object(folder / _ZARR).get("attributes")
    if not isinstance(attributes, dict) or not str(attributes.get("format", "")).startswith("attnviz "):
        return None
    try:
        sums = parse_json(attributes["checksums"], folder / _ZARR)
    except (KeyError, AttnVizError):
        return None
    arrays = frozenset(sums) if isinstance(sums, dict) else frozenset()
    groups = {str(parent) for array in arrays for parent in PurePosixPath(array).parents}

    def ours(name: str) -> bool:
        path = PurePosixPath(name)
        if path.name == _ZARR and str(path.parent) in groups:
            return True
        return any(str(parent) in arrays for parent in path.parents)

    return ours


def _object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path) if path.is_file() else None
    except AttnVizError:
        return {}
    return content if isinstance(content, dict) else {}


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, but for those of folders in it that say themselves what they hold."""
    for root, folders, files in os.walk(folder):
        place = Path(root)
        folders[:] = sorted(name for name in folders if _signature(place / name) is None)
        yield from (place / name for name in sorted(files))
