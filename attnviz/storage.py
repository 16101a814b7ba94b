"""Writing folders whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnviz.errors import OutputError


@contextmanager
def whole_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder to fill, and put it in place only when it is whole.

    Parameters
    ----------
    path : path-like
        Where the folder is to be. Missing parents are made.
    overwrite : bool
        Whether an existing folder may be replaced; it stays until the new one is whole.

    Yields
    ------
    pathlib.Path
        The temporary folder, beside `path`.

    Raises
    ------
    OutputError
        If `path` exists and `overwrite` is not set, is the working directory or one of its parents, or
        cannot be written to (permission, disk full). Nothing half-written is left.
    """
    target = Path(path).expanduser().absolute()
    check_free(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {_reason(error)}.") from error
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        _swap(temporary, target)
    except OSError as error:
        raise OutputError(f"{target} could not be written: {_reason(error)}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse a place for a folder before the work of filling it begins.

    Raises
    ------
    OutputError
        If something is at `path` and `overwrite` is not set; if it is a file, or a folder that holds the
        working directory; or if its nearest existing parent cannot be written to.
    """
    target = Path(path).expanduser().absolute()
    if target.exists():
        if not target.is_dir():
            raise OutputError(f"{target} is a file; a folder is to be written there. Choose another path.")
        if not overwrite:
            raise OutputError(f"{target} exists already. Choose another path, or ask to overwrite it.")
        if target in (Path.cwd(), *Path.cwd().parents):
            raise OutputError(f"{target} holds the working directory and will not be overwritten.")
    parent = next(folder for folder in target.parents if folder.exists())
    try:
        # Tried, not asked: permissions say nothing of read-only or full disks.
        Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent)).rmdir()
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {_reason(error)} in {parent}.") from error


def _swap(temporary: Path, target: Path) -> None:
    """Put `temporary` at `target`. A rename cannot replace a folder that is not empty: move it aside first."""
    if not target.exists():
        temporary.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(aside / target.name)
    try:
        temporary.rename(target)
    except OSError:
        (aside / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
