"""Writing files and folders whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attnviz.errors import OutputError


def is_plain_file(path: Path) -> bool:
    """Say whether a path is a file, which a file may replace."""
    return path.is_file()


@contextmanager
def whole_or_nothing(
    path: str | os.PathLike[str], *, overwrite: bool, replaceable: Callable[[Path], bool] = is_plain_file
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
        permission). Nothing is left behind, and what stood at `path` still does.
    """
    target = _target(path)
    try:
        _check_target(path, target, overwrite, replaceable)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {_reason(error)}.") from error
    partial = _sibling(target, "partial")
    try:
        yield partial
        _swap(partial, target)
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {_reason(error)}. Nothing was left there; is the disk full, or the folder "
            "read-only?"
        ) from error
    finally:
        _remove(partial)


@contextmanager
def whole_folder(
    path: str | os.PathLike[str], *, overwrite: bool, replaceable: Callable[[Path], bool]
) -> Iterator[Path]:
    """Give an empty temporary folder to fill, and put it in place when the block ends well.

    Like `whole_or_nothing`, but missing parents are made, and the folder is there to be filled.

    Raises
    ------
    OutputError
        As `whole_or_nothing`.
    """
    try:
        _target(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {_reason(error)}.") from error
    with whole_or_nothing(path, overwrite=overwrite, replaceable=replaceable) as partial:
        partial.mkdir()
        yield partial


def check_free(path: str | os.PathLike[str], *, overwrite: bool, replaceable: Callable[[Path], bool]) -> None:
    """Refuse a place for a folder before the long work of filling it begins.

    Raises
    ------
    OutputError
        As `whole_folder` would, as far as it can be known beforehand.
    """
    target = _target(path)
    parent = next(folder for folder in target.parents if folder.exists())
    probe = _sibling(parent / target.name, "probe")
    try:
        if parent == target.parent:
            _check_target(path, target, overwrite, replaceable)
        # Tried, not asked: permissions say nothing of a read-only or full disk.
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {_reason(error)} in {parent}.") from error


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to the file `path`, replacing a file that is there; whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written: no such folder, no permission, no space.
    """
    with whole_or_nothing(path, overwrite=True) as partial:
        partial.write_bytes(data)


def _target(path: str | os.PathLike[str]) -> Path:
    try:
        target = Path(os.path.realpath(Path(path).expanduser()))
    except (ValueError, RuntimeError) as error:  # a name no file can have; an unknown user's home
        raise OutputError(f"{os.fspath(path)!r} is no path that can be written to: {error}.") from error
    if not os.fspath(path) or not target.name:
        raise OutputError(f"{os.fspath(path)!r} names nothing that could be written.")
    return target


def _check_target(
    path: str | os.PathLike[str], target: Path, overwrite: bool, replaceable: Callable[[Path], bool]
) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"Cannot write {path}: there is no folder {target.parent}. Create it first.")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise OutputError(
            f"{path} exists already; give another path, or have it overwritten: --overwrite on the command line, "
            "overwrite=True in Python."
        )
    if not replaceable(target):
        raise OutputError(
            f"{path} exists and is not what this would write, so it is not replaced, even where overwriting is "
            "asked for. Is the path right? Remove it by hand if it is."
        )


def _swap(partial: Path, target: Path) -> None:
    if not target.is_dir():
        partial.replace(target)
        return
    # A rename cannot replace a folder that is not empty: step aside first, and back if it fails.
    aside = _sibling(target, "replaced")
    target.rename(aside)
    try:
        partial.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _remove(aside)


def _sibling(target: Path, role: str) -> Path:
    # Not tempfile: what it makes is readable by its owner alone, and this becomes the result.
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{role}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
