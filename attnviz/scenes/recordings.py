"""Read the recordings of ESC-10 from its published folder layout."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from attnviz.arguments import public
from attnviz.audio import load_audio
from attnviz.audio.ogg import ogg_damage
from attnviz.errors import AudioError, warn
from attnviz.io.paths import checked_path
from attnviz.scenes.attribution import attributions
from attnviz.scenes.audibility import FRAME_SECONDS, frame_levels

CLASSES = (
    "Dog bark",
    "Rain",
    "Sea waves",
    "Baby cry",
    "Clock tick",
    "Person sneeze",
    "Helicopter",
    "Chainsaw",
    "Rooster",
    "Fire crackling",
)
"""Names of the classes with numbers 1 to 10, in this order."""

FOLDS = (1, 2, 3, 4, 5)
PER_FOLD = 8  # recordings of each class in each fold
RECORDING_RATE = 20_000
"""Sampling rate of loaded recordings in Hz. Lowered by three semitones, they still extend to 8 kHz."""

_SILENT = 1e-4  # peak of -80 dBFS
_SHORTEST = 0.1  # seconds
_MAX_NAMED = 10


@dataclass(frozen=True)
class Recording:
    """One recording of ESC-10.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    sound : str
        Class name, one of `CLASSES`.
    class_id : int
        Number of the class, 1 to 10.
    fold : int
        Fold of the data set, 1 to 5.
    freesound_id : int
        Number of the source recording. All clips of a source are in the same fold.
    take : str
        Letter of the clip within its source.
    """

    path: Path
    sound: str
    class_id: int
    fold: int
    freesound_id: int
    take: str

    @property
    def name(self) -> str:
        """Published name without suffix, such as "1-100032-A"."""
        return f"{self.fold}-{self.freesound_id}-{self.take}"

    @property
    def sort_key(self) -> tuple[int, int, int, str]:
        """Key that sorts recordings independently of their folder."""
        return self.class_id, self.fold, self.freesound_id, self.take

    @cached_property
    def audio(self) -> np.ndarray:
        """Read-only samples, ``(samples,)`` float32 at `RECORDING_RATE`, decoded once and cached (0.4 MB).

        Raises
        ------
        AudioError
            If the file is missing, is not a complete Ogg file, is shorter than 0.1 s, or is silent.
        """
        try:
            samples = _decode(self.path)
        except AudioError as error:
            raise AudioError(f"recording {self.path}: {error}.") from error
        samples.flags.writeable = False
        return samples

    @cached_property
    def loudest(self) -> tuple[int, int]:
        """First sample of the loudest 10 ms (with bass-weighted levels) and the sample after its last."""
        hop = round(RECORDING_RATE * FRAME_SECONDS)
        start = int(frame_levels(self.audio, RECORDING_RATE).argmax()) * hop
        return start, start + hop

    def __getstate__(self) -> dict[str, object]:
        """Exclude decoded audio from pickles; another process decodes it again."""
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}


@public
def read_esc10(
    folder: str | os.PathLike[str], *, folds: Iterable[int] | None = None, classes: Iterable[str] | None = None
) -> list[Recording]:
    """Read the recordings of ESC-10.

    Parameters
    ----------
    folder : path-like
        Folder with files ``CLASS_ID - Class name/FOLD-FREESOUNDID-TAKE.ogg``.
    folds : iterable of int, optional
        Folds to read. By default, all folds present.
    classes : iterable of str, optional
        Class names to read. By default, all ten.

    Returns
    -------
    list of Recording
        Recordings sorted by class, fold, source and take. All were decoded successfully and are not silent.

    Raises
    ------
    AudioError
        If the folder does not exist, a class is unknown, a fold or class has no usable recording, or a source
        recording is in two folds (which would leak training data into the test set).

    Warns
    -----
    AttnVizWarning
        If recordings were skipped because they are missing (listed in README.md for a fold that is present),
        incomplete or silent, or have an invalid name. The message gives their number and names.
    """
    root = checked_path(folder, "the folder of recordings", AudioError)
    if not root.is_dir():
        raise AudioError(f"there is no folder {root} to read recordings from. Is ESC-10 in another folder?")
    wanted_classes = _wanted_classes(classes)
    listed, skipped = list_recordings(root, wanted_classes)
    there = sorted({recording.fold for recording in listed})
    wanted = there if folds is None else sorted({int(fold) for fold in folds})
    absent = [fold for fold in wanted if fold not in there]
    if absent or not wanted:
        raise AudioError(f"no recordings of folds {absent or wanted} in {root}; there are folds {there}.")
    listed = [recording for recording in listed if recording.fold in wanted]
    skipped += _missing(root, listed, wanted_classes, wanted)
    kept = []
    for recording in listed:
        damage = recording_damage(recording)
        if damage is None:
            kept.append(recording)
        else:
            skipped.append(f"{recording.path.name} ({damage})")
    empty = [name for name in wanted_classes if not any(recording.sound == name for recording in kept)]
    if empty:
        raise AudioError(
            f"no usable recording of {empty} in folds {wanted} of {root}{_named(skipped)}. "
            "Use classes= to exclude a class."
        )
    check_sources(kept)
    if skipped:
        warn(
            f"{len(skipped)} of {len(kept) + len(skipped)} recordings were skipped{_named(skipped)}.",
        )
    return kept


def list_recordings(root: Path, classes: Sequence[str] = CLASSES) -> tuple[list[Recording], list[str]]:
    """Return the recordings of a folder, sorted, and the files with invalid names, without reading them."""
    listed: list[Recording] = []
    strange: list[str] = []
    for class_id, sound in enumerate(CLASSES, start=1):
        if sound not in classes:
            continue
        for path in sorted((root / class_folder(class_id)).glob("*.ogg")):
            if path.name.startswith("."):
                continue
            match = re.fullmatch(r"([1-5])-(\d+)-([A-Z])\.ogg", path.name)
            if match is None:
                strange.append(f"{path.name} (no name of the form FOLD-FREESOUNDID-TAKE.ogg)")
                continue
            listed.append(Recording(path, sound, class_id, int(match[1]), int(match[2]), match[3]))
    return sorted(listed, key=lambda recording: recording.sort_key), strange


def class_folder(class_id: int) -> str:
    """Return the published name of the folder of a class, such as "001 - Dog bark"."""
    return f"{class_id:03d} - {CLASSES[class_id - 1]}"


def recording_damage(recording: Recording) -> str | None:
    """Decode a recording and return the reason it is unusable, or None."""
    try:
        _ = recording.audio
    except AudioError as error:
        return str(error.__cause__)
    return None


def check_sources(recordings: Iterable[Recording]) -> None:
    """Raise AudioError if clips of one source recording are in different folds."""
    folds: dict[int, set[int]] = defaultdict(set)
    for recording in recordings:
        folds[recording.freesound_id].add(recording.fold)
    mixed = {source: sorted(found) for source, found in folds.items() if len(found) > 1}
    if mixed:
        raise AudioError(
            f"clips of one source recording are in different folds: {mixed}. Folds must not share a source; "
            "was a file renamed?"
        )


def _decode(path: Path) -> np.ndarray:
    try:
        damage = ogg_damage(path.read_bytes())
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror}") from error
    if damage is not None:
        raise AudioError(damage)
    try:
        samples = load_audio(path, RECORDING_RATE)
    except AudioError as error:
        raise AudioError(f"cannot be decoded: {error}") from error
    if samples.size < _SHORTEST * RECORDING_RATE:
        raise AudioError(f"shorter than {_SHORTEST} s")
    if np.abs(samples).max() < _SILENT:
        raise AudioError("silent")
    return samples


def _wanted_classes(classes: Iterable[str] | None) -> list[str]:
    if classes is None:
        return list(CLASSES)
    wanted = [classes] if isinstance(classes, str) else list(classes)
    unknown = [name for name in wanted if name not in CLASSES]
    if unknown or not wanted:
        raise AudioError(f"classes {unknown or wanted} are not in ESC-10; its classes are {list(CLASSES)}.")
    return [name for name in CLASSES if name in wanted]


def _missing(root: Path, listed: list[Recording], classes: list[str], folds: list[int]) -> list[str]:
    published = attributions(root, required=False)
    there = {recording.name for recording in listed}
    rows = published[published["sound"].isin(classes) & published["fold"].isin(folds)]
    return [f"{name}.ogg (missing)" for name in rows["recording"] if name not in there]


def _named(skipped: list[str]) -> str:
    if not skipped:
        return ""
    more = f" and {len(skipped) - _MAX_NAMED} more" if len(skipped) > _MAX_NAMED else ""
    return ": " + ", ".join(skipped[:_MAX_NAMED]) + more
