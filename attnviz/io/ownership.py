"""Determine which folders attnviz may replace: those marked as written by attnviz, without files of others.

Folders written by attnviz contain ``attnviz.json`` with their kind and all of their files. Run folders are marked
by ``run.json`` and have files with fixed names; maps are marked by the attributes of their zarr store, which list
every array. All other files belong to others, and folders that contain such files are neither replaced nor
removed.
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
_FURNITURE = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # created by desktops in any folder

Ours = Callable[[str], bool]
"""Return whether attnviz wrote a file, given its path in the folder with ``/``."""


def _never(folder: Path) -> bool:
    return False


@dataclass(frozen=True)
class Kind:
    """A kind of folder that attnviz writes.

    Attributes
    ----------
    name : str
        Name in ``attnviz.json``.
    signed : callable
        Returns whether a folder without ``attnviz.json`` is of this kind, according to another file.
    names : str
        Regular expression of the paths of its files.
    manifest : bool
        Whether ``attnviz.json`` is written; False for folders that always contain the other file.
    """

    name: str
    signed: Callable[[Path], bool] = _never
    names: str = ""
    manifest: bool = True


def sign(folder: Path, kind: Kind) -> None:
    """Write the ``attnviz.json`` of a complete folder."""
    if kind.manifest:
        listed = [path.relative_to(folder).as_posix() for path in _files(folder)]
        content = {"attnviz": _VERSION, "kind": kind.name, "files": [name for name in listed if name != MANIFEST]}
        (folder / MANIFEST).write_bytes(as_json(content, MANIFEST))


def why_not_ours(folder: Path, kind: Kind) -> str | None:
    """Return why a folder may not be replaced by one of a kind, or None if it may."""
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
        return "has no file that shows that attnviz wrote it"
    strange = next(_strangers(folder, ours), None)
    return None if strange is None else f"holds {strange}, which attnviz did not write"


def is_store(folder: Path) -> bool:
    """Return whether a folder is empty, or a zarr store of attnviz without other files."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    ours = _store(folder)
    return ours is not None and next(_strangers(folder, ours), None) is None


def _strangers(folder: Path, ours: Ours, inside: str = "") -> Iterator[str]:
    """Yield the relative paths of files that attnviz did not write."""
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
    """Return which files of a marked folder belong to attnviz, or None if the folder is not marked."""
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
    """Yield the files of a folder, except those in subfolders that are marked themselves."""
    for root, folders, files in os.walk(folder):
        place = Path(root)
        folders[:] = sorted(name for name in folders if _signature(place / name) is None)
        yield from (place / name for name in sorted(files))
