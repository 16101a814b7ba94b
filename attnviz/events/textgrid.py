"""Read Praat TextGrids: tiers of labelled intervals and labelled points.

The long and the short text format follow the same rule of Praat: only free-standing numbers, text in quotation
marks and flags in angle brackets are data. Everything else is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.files import Parsed, parsed, read_text
from attnviz.events.numbers import as_number
from attnviz.io.paths import FilePath

_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|<(?P<flag>\w+)>|(?<!\S)(?P<number>[-+]?\d[\d.]*(?:[eE][-+]?\d+)?)(?!\S)|!(?P<note>.*)'
)
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


@public
def read_textgrid(path: FilePath, *, clip: str | None = None) -> pd.DataFrame:
    """Read a Praat TextGrid in the long or the short text format.

    Parameters
    ----------
    path : path-like
        The ``.TextGrid`` file.
    clip : str, optional
        Name of the clip, which the file does not contain. By default, the name of the file without its suffix.

    Returns
    -------
    pandas.DataFrame
        An event table with the additional column `tier`, and one row per labelled interval or point. Points have
        zero length. Intervals without text are silence and are omitted. A file without labels gives one row
        without times.

    Raises
    ------
    EventsError
        If the file does not exist, is not a TextGrid, or is truncated. The message gives the file.
    """
    return parse_textgrid(read_text(path), path, clip).table


def looks_like_textgrid(text: str) -> bool:
    """Return whether a text has the header of a TextGrid."""
    return re.match(r'\s*(File type = )?"ooTextFile( short)?"\s+(Object class = )?"TextGrid', text) is not None


def parse_textgrid(text: str, path: FilePath, clip: str | None = None) -> Parsed:
    """Return the events of a TextGrid."""
    if not looks_like_textgrid(text):
        raise EventsError(f'{path} is not a TextGrid: it begins {text.lstrip()[:60]!r}, not with "ooTextFile".')
    name = Path(path).stem if clip is None else clip
    tokens = _Tokens(text, path)
    tokens.text()
    tokens.text()
    tokens.number()
    tokens.number()
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    tiers = tokens.count() if tokens.flag() == "exists" else 0
    for _ in range(tiers):
        kind, tier = tokens.text(), tokens.text()
        if kind not in (_INTERVALS, _POINTS):
            raise tokens.refusal(f"a tier is {kind[:40]!r}; expected {_INTERVALS} or {_POINTS}")
        tokens.number()
        tokens.number()
        for _ in range(tokens.count()):
            onset = tokens.number()
            offset = tokens.number() if kind == _INTERVALS else onset
            lines.append(tokens.line)
            label = tokens.text().strip()
            if not label:
                lines.pop()
                continue
            rows.append({"clip": name, "label": label, "onset": onset, "offset": offset, "tier": tier})
    if not rows:
        rows, lines = [{"clip": name, "label": "", "onset": None, "offset": None, "tier": ""}], [1]
    return parsed(rows, path, lambda row: f"line {lines[row]}", names_clips=False)


class _Tokens:
    """Sequential reader of the numbers, texts and flags of a TextGrid."""

    def __init__(self, text: str, path: FilePath) -> None:
        self._text, self._path = text, path
        self._found: Iterator[re.Match[str]] = (one for one in _TOKEN.finditer(text) if one["note"] is None)
        self._at = 0

    @property
    def line(self) -> int:
        """Line of the last token read."""
        return self._text.count("\n", 0, self._at) + 1

    def text(self) -> str:
        """Read a text."""
        return self._next("text", 'text in quotation marks ("...")').replace('""', '"')

    def flag(self) -> str:
        """Read a flag."""
        return self._next("flag", "<exists> or <absent>")

    def number(self) -> float:
        """Read a number."""
        text = self._next("number", "a number")
        number = as_number(text)
        if number is None:
            raise self.refusal(f"found {text[:40]!r}; expected a number")
        return number

    def count(self) -> int:
        """Read the number of items that follow."""
        number = self.number()
        if number != int(number) or number < 0:
            raise self.refusal(f"found {number:g}; expected the number of items that follow")
        return int(number)

    def refusal(self, problem: str) -> EventsError:
        """Return an error that gives the file and the line."""
        return EventsError(f"{self._path}: line {self.line}: {problem}.")

    def _next(self, kind: str, needed: str) -> str:
        found = next(self._found, None)
        if found is None:
            raise EventsError(f"{self._path} ends where {needed} is expected. Was the file copied only in part?")
        self._at = found.start()
        value = found[kind]
        if value is None:
            raise self.refusal(f"found {found[0][:40]!r}; expected {needed}")
        return value
