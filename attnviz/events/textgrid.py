"""TextGrids of Praat: tiers of labelled intervals and of labelled points.

Both formats, long and short, are read by Praat's own rule: only free-standing numbers, texts between quotation
marks and flags between angle brackets count, and what else stands there is for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.files import Parsed, parsed, read_text
from attnviz.events.numbers import as_number
from attnviz.io.paths import FilePath

_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|<(?P<flag>\w+)>|(?<!\S)(?P<number>[-+]?\d[\d.]*(?:[eE][-+]?\d+)?)(?!\S)|!(?P<note>.*)'
)
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


def read_textgrid(path: FilePath, *, clip: str | None = None) -> pd.DataFrame:
    """Read a TextGrid of Praat, in its long or its short text format.

    Parameters
    ----------
    path : path-like
        The ``.TextGrid`` file.
    clip : str, optional
        Name of the clip, which the file does not say; left out: the file's own name without its ending.

    Returns
    -------
    pandas.DataFrame
        An event table with the further column `tier`: one row an interval with a text, or a point, which has no
        length. Intervals without a text are silence. A file without any text gives one row without times.

    Raises
    ------
    EventsError
        No such file, no TextGrid, or one that breaks off; with the file.
    """
    return parse_textgrid(read_text(path), path, clip).table


def looks_like_textgrid(text: str) -> bool:
    """Say whether a text begins as a TextGrid does."""
    return re.match(r'\s*(File type = )?"ooTextFile( short)?"\s+(Object class = )?"TextGrid', text) is not None


def parse_textgrid(text: str, path: FilePath, clip: str | None = None) -> Parsed:
    """Return the events of a TextGrid."""
    if not looks_like_textgrid(text):
        raise EventsError(f'{path} is no TextGrid: it begins {text.lstrip()[:60]!r}, not with "ooTextFile".')
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
            raise tokens.refusal(f"a tier is {kind[:40]!r}; {_INTERVALS} or {_POINTS} is needed")
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
    """The numbers, texts and flags of a TextGrid, one after another."""

    def __init__(self, text: str, path: FilePath) -> None:
        self._text, self._path = text, path
        self._found: Iterator[re.Match[str]] = (one for one in _TOKEN.finditer(text) if one["note"] is None)
        self._at = 0

    @property
    def line(self) -> int:
        """The line of the token that was read last."""
        return self._text.count("\n", 0, self._at) + 1

    def text(self) -> str:
        """Read a text."""
        return self._next("text", 'a text between quotation marks ("...")').replace('""', '"')

    def flag(self) -> str:
        """Read a flag."""
        return self._next("flag", "<exists> or <absent>")

    def number(self) -> float:
        """Read a number."""
        text = self._next("number", "a number")
        number = as_number(text)
        if number is None:
            raise self.refusal(f"{text[:40]!r} stands where a number is needed")
        return number

    def count(self) -> int:
        """Read how many follow."""
        number = self.number()
        if number != int(number) or number < 0:
            raise self.refusal(f"{number:g} stands where a whole number is needed that says how many follow")
        return int(number)

    def refusal(self, problem: str) -> EventsError:
        """Return the error that names the file and the line."""
        return EventsError(f"{self._path}: line {self.line}: {problem}.")

    def _next(self, kind: str, needed: str) -> str:
        found = next(self._found, None)
        if found is None:
            raise EventsError(f"{self._path} breaks off where {needed} is needed. Was it copied only in part?")
        self._at = found.start()
        value = found[kind]
        if value is None:
            raise self.refusal(f"{found[0][:40]!r} stands where {needed} is needed")
        return value
