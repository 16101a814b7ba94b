"""Times and frequencies as event files write them, and how a line that cannot be read is told."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from attnviz.errors import EventsError
from attnviz.io.paths import FilePath

_PLAIN = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d{1,2}(?:[.,]\d*)?)", re.ASCII)
_UNIT = re.compile(r"(?P<number>[^a-z]*[\d.,])\s*(?P<unit>ms|s|sec|secs|seconds?)", re.IGNORECASE | re.ASCII)
_MARK = re.compile(r"\d([.,])\d", re.ASCII)


def as_seconds(text: str) -> float | None:
    """Return a time in seconds; None where it cannot be read without guessing.

    Read are ``1.5`` and ``1,5``, ``1.5s``, ``1500 ms``, and clock times, ``0:01.5`` (minutes and seconds) or
    ``1:00:01.5`` (hours, too).

    Examples
    --------
    >>> [as_seconds(text) for text in ("1,5", "1500 ms", "01:30", "1:00:00.5", "1,234.5", "dog")]
    [1.5, 1.5, 90.0, 3600.5, None, None]
    """
    cell = text.strip()
    clock = _CLOCK.fullmatch(cell)
    if clock is not None:
        seconds = float(clock["s"].replace(",", "."))
        hours, minutes = int(clock["h"] or 0), int(clock["m"])
        return (
            None if seconds >= 60 or (clock["h"] and minutes >= 60) else 3600.0 * hours + 60.0 * minutes + seconds
        )
    unit = _UNIT.fullmatch(cell)
    if unit is None:
        return as_number(cell)
    number = as_number(unit["number"])
    return None if number is None else number / 1000 if unit["unit"].lower() == "ms" else number


def as_number(text: str) -> float | None:
    """Return a number, with a decimal point or comma; None where it is none, or NaN or infinite."""
    cell = text.strip()
    number = float(cell.replace(",", ".")) if _PLAIN.fullmatch(cell) else math.nan
    return number if math.isfinite(number) else None


def check_one_mark(cells: Iterable[str], path: FilePath) -> None:
    """Refuse a file in which numbers have a decimal comma here and a point there: one may part thousands."""
    found: dict[str, str] = {}
    for cell in cells:
        if (mark := _MARK.search(cell)) is not None:
            found.setdefault(mark[1], cell)
    if len(found) > 1:
        raise EventsError(
            f"{Path(path)} has numbers with a point, {found['.']!r}, and with a comma, {found[',']!r}. Which of "
            "the two is decimal, and does the other part thousands? One of them is needed throughout."
        )
