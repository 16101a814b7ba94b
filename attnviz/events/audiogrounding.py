"""Read AudioGrounding: phrases of AudioCaps captions with their times.

Version 1 of the data set is a JSON object of columns (``filename``, ``caption``, ``tokens``, ``soundtag``,
``start_word``, ``timestamps``), each of which maps the key of a phrase to a value. Version 2 is a list of clips,
each with its ``phrases``. In both versions, token indices locate a phrase in its caption.

References
----------
X. Xu, H. Dinkel, M. Wu, K. Yu, "Text-to-Audio Grounding: Building Correspondence Between Captions and Sound
Events", ICASSP 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.files import Parsed, parse_json, parsed, read_text
from attnviz.events.spans import token_spans
from attnviz.events.table import shown
from attnviz.io.paths import FilePath

_COLUMNS = ("audiocap_id", "filename", "caption", "tokens", "soundtag", "start_word", "timestamps")


@dataclass(frozen=True)
class _Phrase:
    """One phrase of either version. `first` and `last` are token indices."""

    key: str
    audiocap_id: str
    clip: str
    caption: str
    tokens: list[str]
    label: str
    first: int
    last: int
    segments: list[Any]


@public
def read_audiogrounding(path: FilePath) -> pd.DataFrame:
    """Read AudioGrounding, version 1 or 2.

    Parameters
    ----------
    path : path-like
        JSON file, optionally compressed with gzip.

    Returns
    -------
    pandas.DataFrame
        An event table with one row per segment. A phrase without segments, or a clip without phrases, has one row
        without times. Additional columns are `caption`, `phrase_id` (unique to each phrase of the file and shared
        by its segments) and `audiocap_id`. Version 2 stores tokens but no caption, so `caption` is the tokens
        joined by spaces, and `span` refers to that text.

    Raises
    ------
    EventsError
        If the file does not exist, has another format, contains a token that does not match the caption at its
        position, or a phrase that does not match its tokens. The message gives the file and the phrase.
    """
    return parse_audiogrounding(read_text(path), path).table


def parse_audiogrounding(text: str, path: FilePath) -> Parsed:
    """Return the segments of an AudioGrounding text."""
    content = parse_json(text, path)
    try:
        rows = list(_by_columns(content) if isinstance(content, dict) else _by_clips(content))
    except EventsError as error:
        raise EventsError(f"{path}: {error}") from error
    if not rows:
        raise EventsError(f"{path} contains no phrases; it begins with {text[:60]!r}.")
    return parsed(rows, path, lambda row: f"phrase {rows[row]['phrase_id']}")


def _rows(phrase: _Phrase) -> Iterator[dict[str, Any]]:
    where = f"phrase {phrase.key}"
    try:
        spans = token_spans(phrase.caption, phrase.tokens)
    except EventsError as error:
        raise EventsError(f"{where}: {error}") from error
    pointed = phrase.tokens[phrase.first : phrase.last + 1]
    if not pointed or pointed != phrase.label.split():
        raise EventsError(
            f"{where} is {phrase.label!r}, but tokens {phrase.first} to {phrase.last} of its caption "
            f"{phrase.caption!r} are {pointed}. Do the token indices start at 0?"
        )
    row = {
        "clip": phrase.clip,
        "label": phrase.label,
        "span": (spans[phrase.first][0], spans[phrase.last][1]),
        "caption": phrase.caption,
        "phrase_id": phrase.key,
        "audiocap_id": phrase.audiocap_id,
    }
    for segment in phrase.segments or [[None, None]]:
        if not isinstance(segment, list) or len(segment) != 2:
            raise EventsError(f"{where}: a segment is {shown(segment)}; expected [onset, offset] in seconds.")
        yield row | {"onset": segment[0], "offset": segment[1]}


def _by_columns(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns = {name: _field(content, name, dict, "the file") for name in _COLUMNS}
    keys = list(columns["filename"])
    for name, column in columns.items():
        if set(column) != set(keys):
            raise EventsError(f"column {name} has {len(column)} phrases, but column filename has {len(keys)}.")
    for key in keys:
        where = f"phrase {key}"
        record = {name: column[key] for name, column in columns.items()}
        label = _field(record, "soundtag", str, where)
        first = _number(record, "start_word", where)
        yield from _rows(
            _Phrase(
                key,
                str(_field(record, "audiocap_id", (int, str), where)),
                _field(record, "filename", str, where),
                _field(record, "caption", str, where),
                _tokens(record, where),
                label,
                first,
                first + len(label.split()) - 1,
                _field(record, "timestamps", list, where),
            )
        )


def _by_clips(content: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(content, list):
        raise EventsError(f"{shown(content)} is not AudioGrounding data; expected a list of clips.")
    for number, clip in enumerate(content):
        where = f"clip {number}"
        tokens = _tokens(clip, where)
        name = _field(clip, "audio_id", str, where)
        caption_id = str(_field(clip, "audiocap_id", (int, str), where))
        phrases = _field(clip, "phrases", list, where)
        if not phrases:
            nothing = {"label": "", "onset": None, "offset": None, "span": None, "phrase_id": str(number)}
            yield nothing | {"clip": name, "caption": " ".join(tokens), "audiocap_id": caption_id}
        for position, item in enumerate(phrases):
            key = f"{number}.{position}"
            yield from _rows(
                _Phrase(
                    key,
                    caption_id,
                    name,
                    " ".join(tokens),
                    tokens,
                    _field(item, "phrase", str, f"phrase {key}"),
                    _number(item, "start_index", f"phrase {key}"),
                    _number(item, "end_index", f"phrase {key}"),
                    _field(item, "segments", list, f"phrase {key}"),
                )
            )


def _tokens(record: Any, where: str) -> list[str]:
    tokens = _field(record, "tokens", (str, list), where)
    tokens = tokens.split() if isinstance(tokens, str) else tokens
    if not all(isinstance(token, str) and token for token in tokens):
        raise EventsError(f"{where}: tokens is {shown(tokens)}; expected a list of non-empty strings.")
    return list(tokens)


def _number(record: Any, name: str, where: str) -> int:
    value = _field(record, name, int, where)
    if isinstance(value, bool) or value < 0:
        raise EventsError(f"{where}: {name} is {value}; expected a token index, counted from 0.")
    return int(value)


def _field(record: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise EventsError(f"{where} has no field {name}. Is it an AudioGrounding or JAMS file?")
    if not isinstance(record[name], kind):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise EventsError(f"{where}: {name} is {shown(record[name])}; expected {kinds}.")
    return record[name]
