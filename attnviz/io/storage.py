"""Writing files and folders whole or not at all.

What is written is written aside, to a temporary file or folder (`attnviz.io.leftovers`), and renamed when it is
whole. Every error of the file system, and of safetensors, becomes an `OutputError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from attnviz.errors import OutputError
from attnviz.io.leftovers import clear_beside, remove, temporary_path
from attnviz.io.ownership import Kind, sign, why_not_ours
from attnviz.io.paths import FilePath, checked_path

_WRITING = (OSError, SafetensorError)
_WhyNot = Callable[[Path], str | None]


def is_plain_file(path: Path) -> bool:
    """Whether a path is a file, which a file may replace."""
    return path.is_file()


@contextmanager
def whole_or_nothing(
    path: FilePath, *, overwrite: bool, replaceable: Callable[[Path], bool] = is_plain_file
) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place when the block ends well.

    Parameters
    ----------
    path : str or path-like
        The file or folder to be written; its parent exists.
    overwrite : bool
        Replace what is there, once the new one is whole.
    replaceable : callable
        Says whether what stands at `path` is of the kind that may be replaced.

    Yields
    ------
    pathlib.Path
        Where to write. It does not exist yet.

    Raises
    ------
    OutputError
        If `path` exists and may not be replaced, its parent is missing, or writing fails (no space, no
        permission, a read-only file system). Nothing is left behind, and what stood at `path` still does.
    """
    with _put_in_place(path, overwrite, _by_content(replaceable)) as partial:
        yield partial


@contextmanager
def whole_folder(path: FilePath, *, overwrite: bool, kind: Kind) -> Iterator[Path]:
    """Give an empty temporary folder to fill, and put it in place when the block ends well.

    Like `whole_or_nothing`, but missing parents are made, the folder is there to be filled, and in the end
    ``attnviz.json`` is written into it, which says what it is and lists its files. Only a folder that is empty,
    or of the same kind and without a file of anybody else, is replaced (`attnviz.io.ownership`).

    Raises
    ------
    OutputError
        As `whole_or_nothing`.
    """
    make_parents(path)
    with _put_in_place(path, overwrite, lambda target: why_not_ours(target, kind)) as partial:
        partial.mkdir()
        yield partial
        sign(partial, kind)


@contextmanager
def files_into(folder: FilePath) -> Iterator[Path]:
    """Give an empty temporary folder; when the block ends well, its files take their places in `folder`.

    A folder that is not there yet appears whole. In one that is there, files of the same names are replaced, and
    all others stay.

    Raises
    ------
    OutputError
        Writing fails. Nothing half-written is left.
    """
    make_parents(folder)
    target = _target(folder)
    with _translated(folder):
        if os.path.lexists(target) and not target.is_dir():
            raise OutputError(f"Cannot write into {folder}: it is a file, and a folder is needed.")
        clear_beside(target)
        partial = temporary_path(target, "partial")
        try:
            partial.mkdir()
            yield partial
            if not target.exists():
                partial.rename(target)
                return
            for file in sorted(path for path in partial.rglob("*") if path.is_file()):
                place = target / file.relative_to(partial)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
        finally:
            remove(partial)


def check_free(path: FilePath, *, overwrite: bool, kind: Kind | None = None) -> None:
    """Raise if an output folder is not available, before the long work begins.

    Raises
    ------
    OutputError
        As `whole_folder` would, as far as it can be known beforehand; without a kind, whether what stands there
        may be replaced is not looked at.
    """
    target = _target(path)
    with _translated(path):
        parent = next(folder for folder in target.parents if folder.exists())
        if parent == target.parent:
            clear_beside(target)
            _check_target(
                path, target, overwrite, lambda found: None if kind is None else why_not_ours(found, kind)
            )
        # Tried, not asked: permissions say nothing of a read-only or full disk.
        probe = temporary_path(parent / target.name, "probe")
        try:
            probe.mkdir()
        finally:
            remove(probe)


def write_whole(path: FilePath, data: bytes) -> None:
    """Write `data` to the file `path`, replacing a file that is there; whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written: no such folder, no permission, no space.
    """
    with whole_or_nothing(path, overwrite=True) as partial:
        partial.write_bytes(data)


@contextmanager
def _put_in_place(path: FilePath, overwrite: bool, why_not: _WhyNot) -> Iterator[Path]:
    target = _target(path)
    with _translated(path):
        clear_beside(target)
        _check_target(path, target, overwrite, why_not)
    partial = temporary_path(target, "partial")
    try:
        with _translated(path):
            yield partial
            _swap(partial, target)
    finally:
        remove(partial)


@contextmanager
def _translated(path: FilePath) -> Iterator[None]:
    try:
        yield
    except _WRITING as error:
        raise OutputError(
            f"Cannot write {os.fspath(path)}: {_reason(error)}. Nothing was left there; is the disk full, or the "
            "folder read-only?"
        ) from error


def _by_content(replaceable: Callable[[Path], bool]) -> _WhyNot:
    return lambda target: None if replaceable(target) else "is not what this would write"


def make_parents(path: FilePath) -> None:
    """Make the folders that a file or folder is to stand in, or raise `OutputError`."""
    with _translated(path):
        _target(path).parent.mkdir(parents=True, exist_ok=True)


def _target(path: FilePath) -> Path:
    given = checked_path(path, "the path to write to", OutputError)
    target = Path(os.path.realpath(given))
    if not target.name:
        raise OutputError(f"{os.fspath(path)!r} names nothing that could be written.")
    return target


def _check_target(path: FilePath, target: Path, overwrite: bool, why_not: _WhyNot) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"Cannot write {path}: there is no folder {target.parent}. Create it first.")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise OutputError(
            f"{path} exists already; give another path, or have it overwritten: --overwrite on the command line, "
            "overwrite=True in Python."
        )
    if (reason := why_not(target)) is not None:
        raise OutputError(
            f"{path} exists and {reason}, so it is not replaced, even where overwriting is asked for. Is the path "
            "right? Move away by hand what is to be kept, and remove the rest."
        )


def _swap(partial: Path, target: Path) -> None:
    if not target.is_dir():
        partial.replace(target)
        return
    # A rename cannot replace a folder that is not empty: step aside first, and back if it fails.
    aside = temporary_path(target, "replaced")
    target.rename(aside)
    try:
        partial.rename(target)
    except OSError:
        aside.rename(target)
        raise
    remove(aside)


def _reason(error: BaseException) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or (str(error).strip() or type(error).__name__).splitlines()[0]
