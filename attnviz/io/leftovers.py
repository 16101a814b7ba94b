"""What a killed process leaves half-written: its name tells its owner, and it is removed once the owner is dead.

A temporary file or folder stands beside what it becomes and is called ``.NAME.PLACE-PID-START-RANDOM.ROLE``: the
machine on which the process ran, its number, and when it started, in seconds. Roles are ``partial`` (being
written), ``replaced`` (what stood there before, put back if the process died in between), ``probe`` and
``removed``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

Role = Literal["partial", "replaced", "probe", "removed"]

_NAME = re.compile(
    r"\.(?P<of>.+)\.(?P<place>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<start>\d{1,12})-[0-9a-f]{6}"
    r"\.(?P<role>partial|replaced|probe|removed)",
    re.DOTALL,
)
_LONGEST = 160  # bytes of a name kept in a temporary name; longer names are cut and made unique by a digest
_CLOCK = 2.0  # seconds by which two readings of a process's start may differ


@dataclass(frozen=True)
class Leftover:
    """A temporary file or folder.

    Attributes
    ----------
    path : pathlib.Path
    of : str
        Name of what it was to become, cut where it is long.
    role : {"partial", "replaced", "probe", "removed"}
    dead : bool
        Whether its owner ran on this machine and has ended. Of other machines nothing can be known.
    """

    path: Path
    of: str
    role: str
    dead: bool


def temporary_path(target: Path, role: Role) -> Path:
    """Return a new path beside `target`, named after this process."""
    # Not tempfile: what it makes is readable by its owner alone, and this becomes the result.
    start = round(_process_start(os.getpid()) or 0)
    owner = f"{_place()}-{os.getpid()}-{start}-{uuid.uuid4().hex[:6]}"
    return target.with_name(f".{_short(target.name)}.{owner}.{role}")


def as_leftover(path: Path) -> Leftover | None:
    """Return what a path's name tells, or None where it is not the name of a temporary file or folder."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    here = match["place"] == _place()
    return Leftover(path, match["of"], match["role"], here and not _runs(int(match["pid"]), int(match["start"])))


def clear_beside(target: Path) -> None:
    """Remove what dead processes left of `target`, and put back what they had moved aside."""
    short = _short(target.name)
    try:
        with os.scandir(target.parent) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(f".{short}.")]
    except OSError:  # a folder that cannot be listed can be written to all the same
        return
    for name in names:
        found = as_leftover(target.parent / name)
        if found is not None and found.of == short and found.dead:
            clear(found, target)


def clear(leftover: Leftover, target: Path | None = None) -> Path | None:
    """Remove a leftover, or put it back; return where it was put back to.

    Parameters
    ----------
    leftover : Leftover
        Its owner is dead.
    target : pathlib.Path, optional
        What it was to become; left out: as its own name tells, where that was not cut.
    """
    place = leftover.path.with_name(leftover.of) if target is None else target
    if leftover.role == "replaced" and not os.path.lexists(place) and _short(place.name) == leftover.of:
        try:
            leftover.path.rename(place)
        except OSError:  # another process was faster, or the folder cannot be written to
            return None
        return place
    remove(leftover.path)
    return None


def find_leftovers(folder: Path) -> Iterator[Leftover]:
    """Yield the leftovers in a folder and in those below it, links not followed."""
    for root, folders, files in os.walk(folder):
        found = [as_leftover(Path(root) / name) for name in sorted([*folders, *files])]
        yield from (one for one in found if one is not None)
        folders[:] = sorted(name for name in folders if as_leftover(Path(root) / name) is None)


def remove(path: Path) -> None:
    """Remove a file or folder of our own as far as the file system lets it; the next run tries again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST:
        return name
    return f"{os.fsdecode(encoded[:100])}~{hashlib.sha256(encoded).hexdigest()[:12]}"


@cache
def _place() -> str:
    """Return what tells apart the machines, and the containers, in which a number means a process."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode(errors="replace")).hexdigest()[:8]


def _runs(pid: int, start: int) -> bool:
    try:
        begun = _process_start(pid)
    except psutil.AccessDenied:  # another user's, and alive
        return True
    return begun is not None and abs(begun - start) <= _CLOCK


def _process_start(pid: int) -> float | None:
    """Return when a process began, in seconds; None where it has ended, collected by its parent or not."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, OverflowError):
        return None
