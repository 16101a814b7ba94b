"""Match clip names to audio files across the naming schemes of AudioSet and its derived data sets.

AudioSet clips are parts of YouTube videos, at most one part per video. The same part is named
``YID_30.000_40.000.wav`` in DESED (an 11-character id behind a ``Y``, start and end in seconds),
``ID_30.000_40.000.wav`` in AudioGrounding 1, ``YID.wav`` in AudioGrounding 2, ``ID_30.wav`` in AudioCaps and
``ID_30000`` (milliseconds) in AudioSet-strong.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError, warn
from attnviz.events.files import FilePath
from attnviz.io.paths import checked_path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
_WHOLE, _FRACTION = r"\d{1,9}", r"\d{1,9}\.\d{1,9}"
_PART = re.compile(
    rf"(?P<y>Y?)(?P<id>[\w-]{{11}})(?:_(?P<whole>{_WHOLE})|_(?P<start>{_FRACTION})_(?P<end>{_FRACTION}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class ClipFiles:
    """Audio files found for the clips of a table.

    Attributes
    ----------
    files : dict of str to pathlib.Path
        File of each clip that matches exactly one.
    unmatched : tuple of str
        Clips without a matching file.
    ambiguous : dict of str to tuple of pathlib.Path
        Clips that match several files, or whose file also matches other parts of the same recording.
    unused : tuple of pathlib.Path
        Audio files in the folder that match no clip.
    """

    files: dict[str, Path]
    unmatched: tuple[str, ...]
    ambiguous: dict[str, tuple[Path, ...]]
    unused: tuple[Path, ...]


@dataclass(frozen=True)
class _Part:
    """A part of a recording, in ms.

    `starts` is empty if the name contains no start time, and has two values if its number can be seconds or
    milliseconds. `marked` is true if the name has a form that only the data sets use: a leading ``Y``, or a start
    and an end.
    """

    recording: str
    starts: frozenset[int]
    end: int | None
    marked: bool

    def fits(self, other: _Part) -> bool:
        """Return whether two names can denote the same part; a missing time matches any time."""
        if self.recording != other.recording:
            return False
        if not self.starts or not other.starts:
            return self.marked or other.marked
        ends = self.end is None or other.end is None or self.end == other.end
        return ends and bool(self.starts & other.starts)


@public
def match_clips(clips: pd.DataFrame | Iterable[str], folder: FilePath) -> ClipFiles:
    """Find the audio files of clips in a folder.

    Parameters
    ----------
    clips : pandas.DataFrame or iterable of str
        An event table, or names of clips with or without the suffix of an audio file.
    folder : path-like
        Folder with the audio files, which is searched recursively.

    Returns
    -------
    ClipFiles
        The files found. An identical name takes precedence over a name that differs in its suffix only, which
        takes precedence over another naming scheme: the same recording (with or without ``Y``), and the same
        start time if both names contain one.

    Raises
    ------
    EventsError
        If the folder does not exist or contains no audio file, or the table has no column ``clip``.

    Warns
    -----
    AttnVizWarning
        If clips match no file or several. The message gives their number and the first of them.
    """
    if isinstance(clips, pd.DataFrame) and "clip" not in clips.columns:
        raise EventsError("clips has no column 'clip'; an event table or the names of clips are needed.")
    names = list(dict.fromkeys(clips["clip"] if isinstance(clips, pd.DataFrame) else clips))
    root = checked_path(folder, "the audio folder", EventsError)
    if not root.is_dir():
        raise EventsError(f"the audio folder {folder} does not exist or is not a folder.")
    audio = sorted(path for path in root.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not audio:
        raise EventsError(f"{folder} contains no audio file; supported suffixes are {', '.join(AUDIO_SUFFIXES)}.")
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
        warn(_shortfall(len(names), unmatched, ambiguous, folder))
    return ClipFiles(files, unmatched, ambiguous, unused)


@public
def clip_seconds(name: str) -> float | None:
    """Return the length in seconds that the name of a clip implies, or None if it implies none.

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
    """Return the known clip that a name denotes, or raise :class:`EventsError`."""
    places = _candidates([name], known)[name]
    if len(places) != 1:
        shown = [known[place] for place in places] or list(known)
        raise EventsError(
            f"clip {name!r} matches "
            + (f"{len(places)} clips" if places else f"none of the {len(known)} clips")
            + f" of the file: {shown[:5]}."
        )
    return known[places[0]]


def _candidates(names: Iterable[str], known: Sequence[str]) -> dict[str, list[int]]:
    """Return the indices of the known names that match each name best."""
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
    """Return the files matched by clips that cannot be the same part of a recording."""
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
        starts.add(int(whole))  # AudioSet-strong: ms, at whole seconds
    marked = bool(match["y"]) or end is not None
    return _Part(match["id"], frozenset(starts), None if end is None else _milliseconds(end), marked)


def _milliseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 1000 + int(fraction[:3].ljust(3, "0"))


def _last(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _stem(name: str) -> str:
    """Return a name without folder and audio suffix; the ``.000`` of ``_30.000_40.000`` is not a suffix."""
    last = _last(name)
    return last[: last.rindex(".")] if last.lower().endswith(AUDIO_SUFFIXES) else last


def _shortfall(
    clips: int, unmatched: tuple[str, ...], ambiguous: dict[str, tuple[Path, ...]], folder: FilePath
) -> str:
    parts = []
    if unmatched:
        parts.append(f"{len(unmatched)} of {clips} clips have no audio file in {folder}: {list(unmatched[:5])}")
    if ambiguous:
        parts.append(f"{len(ambiguous)} of {clips} clips match several files, or share one: {list(ambiguous)[:5]}")
    return "; ".join(parts) + "."
