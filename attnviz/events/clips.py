"""Names of clips, in the forms that data sets cut from one video archive give them, and the files they name.

AudioSet's clips are parts of YouTube videos, at most one part of each. The same part is
``YID_30.000_40.000.wav`` in DESED (an 11-character id behind a ``Y``, start and end in seconds),
``ID_30.000_40.000.wav`` in AudioGrounding 1, ``YID.wav`` in AudioGrounding 2, ``ID_30.wav`` in AudioCaps and
``ID_30000`` (milliseconds) in AudioSet-strong.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from attnviz.errors import AttnVizWarning, EventsError
from attnviz.events.files import FilePath

_AUDIO = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
_WHOLE, _FRACTION = r"\d{1,9}", r"\d{1,9}\.\d{1,9}"
_PART = re.compile(
    rf"(?P<y>Y?)(?P<id>[\w-]{{11}})(?:_(?P<whole>{_WHOLE})|_(?P<start>{_FRACTION})_(?P<end>{_FRACTION}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class ClipFiles:
    """Which audio file each clip of a table is.

    Attributes
    ----------
    files : dict of str to pathlib.Path
        Clip -> its file, for the clips that have exactly one.
    unmatched : tuple of str
        Clips that no file fits.
    ambiguous : dict of str to tuple of pathlib.Path
        Clips that several files fit, or whose file fits other parts of the same recording as well.
    unused : tuple of pathlib.Path
        Audio files of the folder that belong to no clip.
    """

    files: dict[str, Path]
    unmatched: tuple[str, ...]
    ambiguous: dict[str, tuple[Path, ...]]
    unused: tuple[Path, ...]


@dataclass(frozen=True)
class _Part:
    """A part of a recording, in ms.

    `starts` is empty where the name has none, and has two values where its number can be s or ms. `marked`: only
    data sets give names of this form, by a ``Y`` or by start and end; others may be anyone's own.
    """

    recording: str
    starts: frozenset[int]
    end: int | None
    marked: bool

    def fits(self, other: _Part) -> bool:
        """Say whether two names can mean the same part; what a name leaves out fits anything."""
        if self.recording != other.recording:
            return False
        if not self.starts or not other.starts:
            return self.marked or other.marked
        ends = self.end is None or other.end is None or self.end == other.end
        return ends and bool(self.starts & other.starts)


def match_clips(clips: pd.DataFrame | Iterable[str], folder: FilePath) -> ClipFiles:
    """Find the audio files of clips in a folder.

    Parameters
    ----------
    clips : pandas.DataFrame or iterable of str
        An event table, or names of clips, with or without an audio file's suffix.
    folder : path-like
        Where the audio is, in subfolders too.

    Returns
    -------
    ClipFiles
        The same name comes before the same name with another suffix or none, and that before another form of
        the name: the same recording (with or without ``Y``), with the same start where both say one.

    Raises
    ------
    EventsError
        No such folder, or no audio file in it.

    Warns
    -----
    AttnVizWarning
        Clips without a file, or with several; with how many, and the first of them.
    """
    names = list(dict.fromkeys(clips["clip"] if isinstance(clips, pd.DataFrame) else clips))
    root = Path(folder)
    if not root.is_dir():
        raise EventsError(f"there is no folder {folder} with audio files.")
    audio = sorted(path for path in root.rglob("*") if path.suffix.lower() in _AUDIO and path.is_file())
    if not audio:
        raise EventsError(f"no audio file is in {folder}; looked for {', '.join(_AUDIO)}.")
    candidates = _candidates(names, [path.name for path in audio])
    contested = _contested(candidates)
    files, ambiguous = {}, {}
    for name, places in candidates.items():
        if len(places) > 1 or contested.intersection(places):
            ambiguous[name] = tuple(audio[place] for place in places)
        elif places:
            files[name] = audio[places[0]]
    unmatched = tuple(name for name, places in candidates.items() if not places)
    used = {place for places in candidates.values() for place in places}
    unused = tuple(path for place, path in enumerate(audio) if place not in used)
    if unmatched or ambiguous:
        warnings.warn(_shortfall(len(names), unmatched, ambiguous, folder), AttnVizWarning, stacklevel=2)
    return ClipFiles(files, unmatched, ambiguous, unused)


def clip_seconds(name: str) -> float | None:
    """Return the length that a clip's name tells, in seconds; None where it tells none.

    Examples
    --------
    >>> clip_seconds("Y00pbt6aJV8Y_350.000_360.000.wav")
    10.0
    >>> clip_seconds("_GI7meqlYZk_30.wav") is None
    True
    """
    part = _part(name)
    if part is None or part.end is None:
        return None
    seconds = (part.end - min(part.starts)) / 1000
    return seconds if seconds > 0 else None


def clip_named(name: str, known: Sequence[str]) -> str:
    """Return which of the known clips a name means, or raise :class:`EventsError`."""
    places = _candidates([name], known)[name]
    if len(places) != 1:
        shown = [known[place] for place in places] or list(known)
        raise EventsError(
            f"clip {name!r} is "
            + (f"{len(places)} of the clips" if places else f"none of the {len(known)} clips")
            + f" in the file: {shown[:5]}."
        )
    return known[places[0]]


def _candidates(names: Iterable[str], known: Sequence[str]) -> dict[str, list[int]]:
    """Return which of the known names fit each name best, by number."""
    by_name, by_stem, by_recording = (defaultdict[str, list[int]](list) for _ in range(3))
    parts = [_part(name) for name in known]
    for place, (name, part) in enumerate(zip(known, parts, strict=True)):
        by_name[_last(name)].append(place)
        by_stem[_stem(name)].append(place)
        if part is not None:
            by_recording[part.recording].append(place)
    found = {}
    for name in names:
        places = by_name.get(_last(name)) or by_stem.get(_stem(name))
        part = _part(name)
        if places is None and part is not None:
            others = ((place, parts[place]) for place in by_recording.get(part.recording, []))
            places = [place for place, other in others if other is not None and part.fits(other)]
        found[name] = places or []
    return found


def _contested(candidates: dict[str, list[int]]) -> set[int]:
    """Return the files that clips claim which cannot be the same part of a recording."""
    claims = defaultdict[int, list[_Part]](list)
    for name, places in candidates.items():
        part = _part(name)
        if part is not None:
            for place in places:
                claims[place].append(part)
    return {
        place for place, parts in claims.items() if any(not one.fits(two) for one, two in combinations(parts, 2))
    }


def _part(name: str) -> _Part | None:
    match = _PART.fullmatch(_stem(name))
    if match is None:
        return None
    whole, start, end = match["whole"], match["start"], match["end"]
    starts = {_milliseconds(number) for number in (whole, start) if number is not None}
    if whole is not None and int(whole) % 1000 == 0:
        starts.add(int(whole))  # AudioSet-strong's, whose clips begin at whole seconds
    marked = bool(match["y"]) or end is not None
    return _Part(match["id"], frozenset(starts), None if end is None else _milliseconds(end), marked)


def _milliseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 1000 + int(fraction[:3].ljust(3, "0"))


def _last(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _stem(name: str) -> str:
    """Return a name without folder and audio suffix; the ``.000`` of ``_30.000_40.000`` is none."""
    last = _last(name)
    return last[: last.rindex(".")] if last.lower().endswith(_AUDIO) else last


def _shortfall(
    clips: int, unmatched: tuple[str, ...], ambiguous: dict[str, tuple[Path, ...]], folder: FilePath
) -> str:
    parts = []
    if unmatched:
        parts.append(f"{len(unmatched)} of {clips} clips have no audio file in {folder}: {list(unmatched[:5])}")
    if ambiguous:
        parts.append(f"{len(ambiguous)} of {clips} clips fit no single file: {list(ambiguous)[:5]}")
    return "; ".join(parts) + "."
