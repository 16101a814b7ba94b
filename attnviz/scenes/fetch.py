"""Fetch ESC-10 from its public archive or from a copy."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attnviz.arguments import public
from attnviz.errors import AudioError, OutputError, warn
from attnviz.io.ownership import Kind
from attnviz.io.paths import checked_path
from attnviz.io.storage import check_free, whole_folder
from attnviz.scenes.recordings import (
    CLASSES,
    FOLDS,
    PER_FOLD,
    check_sources,
    class_folder,
    list_recordings,
    recording_damage,
)

ARCHIVE_COMMIT = "553c8f1743b9dba6b282e1323c3ca8fa76923448"
ARCHIVE_URL = f"https://github.com/karoldvl/ESC-10/archive/{ARCHIVE_COMMIT}.zip"

_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20
_ESC10 = Kind("ESC-10")
_DOCUMENTS = ("README.md", "LICENSE")


@public
def fetch_esc10(
    target: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None, overwrite: bool = False
) -> Path:
    """Copy or download ESC-10 into a folder and check it.

    Parameters
    ----------
    target : path-like
        Folder to create, in the published layout. It is created atomically.
    source : str or path-like, optional
        A folder with ESC-10, or the path or URL of a zip file. By default, the public archive at a fixed commit
        (about 40 MB).
    overwrite : bool
        Replace an existing `target`.

    Returns
    -------
    pathlib.Path
        `target`.

    Raises
    ------
    AudioError
        If the source does not exist, cannot be downloaded, is not a zip file, or fails a check.
    OutputError
        If `target` exists or cannot be written.

    Warns
    -----
    AttnVizWarning
        If whole folds are missing from the copy in `source`.

    Notes
    -----
    The following is checked: each fold contains eight recordings of each of the ten classes, and the public
    archive contains all five folds; every recording is a complete Ogg file that decodes and is not silent; no
    source recording is in two folds. The archive has no fixed checksum, because the service repacks it for each
    request; its URL names the commit instead. Only recordings, README.md and LICENSE are copied from the source.
    """
    place = checked_path(target, "the folder for ESC-10", OutputError).absolute()
    check_free(place, overwrite=overwrite, kind=_ESC10)
    with whole_folder(place, overwrite=overwrite, kind=_ESC10) as folder:
        if source is None:
            _unpack_address(ARCHIVE_URL, folder)
        elif isinstance(source, str) and re.match(r"[a-z]+://", source):
            _unpack_address(source, folder)
        else:
            _take(checked_path(source, "the source of ESC-10", AudioError), folder)
        left_out = _check(folder, str(source or ARCHIVE_URL), every_fold=source is None)
    if left_out:
        warn(f"{source} has no recordings of folds {left_out}.")
    return place


def _take(source: Path, folder: Path) -> None:
    if source.is_file():
        _unpack(source, folder)
        return
    if not source.is_dir():
        raise AudioError(f"there is no folder or zip file {source}; expected ESC-10 there.")
    for path in sorted(source.glob("*/*.ogg")) + [source / name for name in _DOCUMENTS]:
        place = _place(path.relative_to(source).as_posix())
        if place is not None and path.is_file():
            (folder / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / place)


def _unpack_address(address: str, folder: Path) -> None:
    archive = folder / "archive.zip"
    with archive.open("wb") as file:  # outside the network handler, so that a full disk is not a network error
        for chunk in _download(address):
            file.write(chunk)
    _unpack(archive, folder)
    archive.unlink()


def _download(address: str) -> Iterator[bytes]:
    received = 0
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AudioError(
            f"ESC-10 cannot be downloaded from {address}: {error}. Without a network, give a copy as source."
        ) from error
    if expected is not None and received != int(expected):
        raise AudioError(f"the download of {address} stopped after {received} of {expected} bytes. Try again.")


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                # Files are in a folder named after the commit, or at the top level.
                place = _place(name) or _place(name.partition("/")[2])
                if place is not None:
                    (folder / place).parent.mkdir(exist_ok=True)
                    with file.open(name) as member, (folder / place).open("wb") as copy:
                        shutil.copyfileobj(member, copy, _CHUNK)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise AudioError(f"{archive.name} is not a zip file that can be read: {error}.") from error


def _place(name: str) -> str | None:
    """Return the place of a file of the data set, or None for any other file, including unsafe paths."""
    if name in _DOCUMENTS:
        return name
    sound, _, file = name.partition("/")
    known = {class_folder(number) for number in range(1, len(CLASSES) + 1)}
    return name if sound in known and re.fullmatch(r"[\w-]+\.ogg", file) else None


def _check(folder: Path, source: str, *, every_fold: bool) -> list[int]:
    """Raise AudioError if the folder is not ESC-10; return the missing folds."""
    listed, strange = list_recordings(folder)
    if not listed:
        raise AudioError(
            f"{source} has no recordings of the form 'CLASS_ID - Class name/FOLD-FREESOUNDID-TAKE.ogg'. "
            "Is it the folder that contains the ten class folders?"
        )
    found = Counter((recording.class_id, recording.fold) for recording in listed)
    folds = FOLDS if every_fold else tuple(sorted({recording.fold for recording in listed}))
    wrong = [
        f"{class_folder(class_id)}, fold {fold}: {found[class_id, fold]}"
        for class_id in range(1, len(CLASSES) + 1)
        for fold in folds
        if found[class_id, fold] != PER_FOLD
    ]
    wrong += [f"{recording.path.name}: {why}" for recording in listed if (why := recording_damage(recording))]
    wrong += strange
    if wrong:
        raise AudioError(
            f"{source} is not ESC-10 as published, with {PER_FOLD} whole recordings of each class in each "
            f"fold; {len(wrong)} differences: {'; '.join(wrong[:10])}."
        )
    check_sources(listed)
    return [fold for fold in FOLDS if fold not in folds]
