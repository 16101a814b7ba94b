"""Write files and folders atomically.

Everything is written to a temporary file or folder (`attnviz.io.leftovers`), which is renamed when it is complete.
All errors of the file system, and of safetensors, are converted to `OutputError`.
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
    """Return whether a path is a file, which may be replaced by a file."""
    return path.is_file()


@contextmanager
def whole_or_nothing(
    path: FilePath, *, overwrite: bool, replaceable: Callable[[Path], bool] = is_plain_file
) -> Iterator[Path]:
    """Provide a temporary path that replaces `path` when the block ends without an error.

    Parameters
    ----------
    path : str or path-like
        File or folder to write, whose parent exists.
    overwrite : bool
        Replace existing content once the new one is complete.
    replaceable : callable
        Returns whether the existing content of `path` may be replaced.

    Yields
    ------
    pathlib.Path
        Path to write to, which does not exist yet.

    Raises
    ------
    OutputError
        If `path` exists and may not be replaced, its parent is missing, or writing fails (no space, no permission,
        a read-only file system). No temporary files are left, and existing content is kept.
    """
    with _put_in_place(path, overwrite, _by_content(replaceable)) as partial:
        yield partial


@contextmanager
def whole_folder(path: FilePath, *, overwrite: bool, kind: Kind) -> Iterator[Path]:
    """Provide an empty temporary folder that replaces `path` when the block ends without an error.

    Like `whole_or_nothing`, but missing parents and the folder itself are created, and ``attnviz.json`` with the
    kind and the list of files is written at the end. An existing folder is only replaced if it is empty, or of the
    same kind and without files of others (see `attnviz.io.ownership`).

    Raises
    ------
    OutputError
        See `whole_or_nothing`.
    """
    make_parents(path)
    with _put_in_place(path, overwrite, lambda target: why_not_ours(target, kind)) as partial:
        partial.mkdir()
        yield partial
        sign(partial, kind)


@contextmanager
def files_into(folder: FilePath) -> Iterator[Path]:
    """Provide an empty temporary folder, whose files are moved to `folder` when the block ends without an error.

    A new folder appears with all of its files. In an existing folder, files of the same names are replaced, and
    others are kept.

    Raises
    ------
    OutputError
        If writing fails. No partial files are left.
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
    """Raise if an output folder is not available, before a long computation.

    Raises
    ------
    OutputError
        Under the conditions of `whole_folder`, as far as they can be checked in advance. Without a kind, existing
        content is not checked.
    """
    target = _target(path)
    with _translated(path):
        parent = next(folder for folder in target.parents if folder.exists())
        if parent == target.parent:
            clear_beside(target)
            _check_target(
                path, target, overwrite, lambda found: None if kind is None else why_not_ours(found, kind)
            )
        # Try to write, because permissions do not show whether a disk is read-only or full.
        probe = temporary_path(parent / target.name, "probe")
        try:
            probe.mkdir()
        finally:
            remove(probe)


def write_whole(path: FilePath, data: bytes) -> None:
    """Write `data` to the file `path` atomically, replacing an existing file.

    Raises
    ------
    OutputError
        If the file cannot be written: no such folder, no permission, no space.
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
    """Create the parent folders of a file or folder, or raise `OutputError`."""
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
            f"{path} exists and {reason}, so it is not replaced, even with --overwrite or overwrite=True. "
            "Is the path right? Move or remove it yourself, or give another path."
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
