"""Parse times and frequencies as event files write them."""

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
    """Return a time in seconds, or None if the text is ambiguous or not a time.

    Accepted forms are ``1.5``, ``1,5``, ``1.5s``, ``1500 ms``, and the clock times ``0:01.5`` (minutes and
    seconds) and ``1:00:01.5`` (hours, minutes and seconds).

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
    """Return a finite number written with a decimal point or comma, or None if the text is not one."""
    cell = text.strip()
    number = float(cell.replace(",", ".")) if _PLAIN.fullmatch(cell) else math.nan
    return number if math.isfinite(number) else None


def check_one_mark(cells: Iterable[str], path: FilePath) -> None:
    """Reject a file that uses both a point and a comma in numbers: one may separate thousands."""
    found: dict[str, str] = {}
    for cell in cells:
        if (mark := _MARK.search(cell)) is not None:
            found.setdefault(mark[1], cell)
    if len(found) > 1:
        raise EventsError(
            f"{Path(path)} contains numbers with a point, {found['.']!r}, and with a comma, {found[',']!r}. Does "
            "one of them separate thousands? Use the same decimal mark throughout."
        )
