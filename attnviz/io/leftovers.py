"""Temporary files of killed processes, which are identified by name and removed once their owner is dead.

A temporary file or folder is beside its target and named ``.NAME.PLACE-PID-START-RANDOM.ROLE``: machine, number
and start time (in seconds) of the process. Roles are ``partial`` (being written), ``replaced`` (the previous
content, which is restored if the process dies before the replacement), ``probe`` and ``removed``.
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
_LONGEST = 160  # maximum bytes of the name in a temporary name; longer names are truncated with a digest
_CLOCK = 2.0  # tolerance of start times of processes in seconds


@dataclass(frozen=True)
class Leftover:
    """A temporary file or folder.

    Attributes
    ----------
    path : pathlib.Path
    of : str
        Name of its target, truncated if long.
    role : {"partial", "replaced", "probe", "removed"}
    dead : bool
        Whether its owner ran on this machine and has ended. Processes on other machines are never considered dead.
    """

    path: Path
    of: str
    role: str
    dead: bool


def temporary_path(target: Path, role: Role) -> Path:
    """Return a new path beside `target`, named after this process."""
    # Not tempfile, whose files are readable only by their owner, because this becomes the result.
    start = round(_process_start(os.getpid()) or 0)
    owner = f"{_place()}-{os.getpid()}-{start}-{uuid.uuid4().hex[:6]}"
    return target.with_name(f".{_short(target.name)}.{owner}.{role}")


def as_leftover(path: Path) -> Leftover | None:
    """Parse the name of a temporary file or folder; return None for other names."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    here = match["place"] == _place()
    return Leftover(path, match["of"], match["role"], here and not _runs(int(match["pid"]), int(match["start"])))


def clear_beside(target: Path) -> None:
    """Remove temporary files of dead processes for `target`, and restore content that they moved aside."""
    short = _short(target.name)
    try:
        with os.scandir(target.parent) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(f".{short}.")]
    except OSError:  # a folder that cannot be listed may still be writable
        return
    for name in names:
        found = as_leftover(target.parent / name)
        if found is not None and found.of == short and found.dead:
            clear(found, target)


def clear(leftover: Leftover, target: Path | None = None) -> Path | None:
    """Remove a leftover, or restore it and return the path.

    Parameters
    ----------
    leftover : Leftover
        Leftover of a dead owner.
    target : pathlib.Path, optional
        Its target. By default, it is derived from the name, unless that was truncated.
    """
    place = leftover.path.with_name(leftover.of) if target is None else target
    if leftover.role == "replaced" and not os.path.lexists(place) and _short(place.name) == leftover.of:
        try:
            leftover.path.rename(place)
        except OSError:  # another process was faster, or the folder is not writable
            return None
        return place
    remove(leftover.path)
    return None


def find_leftovers(folder: Path) -> Iterator[Leftover]:
    """Yield the leftovers in a folder and its subfolders, without following links."""
    for root, folders, files in os.walk(folder):
        found = [as_leftover(Path(root) / name) for name in sorted([*folders, *files])]
        yield from (one for one in found if one is not None)
        folders[:] = sorted(name for name in folders if as_leftover(Path(root) / name) is None)


def remove(path: Path) -> None:
    """Remove a file or folder of attnviz as far as possible; the next run tries again."""
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
    """Return an identifier of the machine or container, within which process numbers are unique."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode(errors="replace")).hexdigest()[:8]


def _runs(pid: int, start: int) -> bool:
    try:
        begun = _process_start(pid)
    except psutil.AccessDenied:  # process of another user, which is alive
        return True
    return begun is not None and abs(begun - start) <= _CLOCK


def _process_start(pid: int) -> float | None:
    """Return the start time of a process in seconds, or None if it has ended (including zombies)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, OverflowError):
        return None
