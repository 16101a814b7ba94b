"""Read and write JSON, and read TOML. All errors are AttnVizErrors that name the file."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnviz.errors import AttnVizError
from attnviz.io.paths import FilePath, checked_path, shown_path

MOST_BYTES = 512 * 2**20  # AudioGrounding, the largest known file, has 12 MB
DEEPEST = 100  # nested lists and objects; files of attnviz, diffusers and JAMS have fewer than 10 levels


def read_json(
    path: FilePath, *, error: type[AttnVizError] = AttnVizError, hint: str = "", constants: bool = False
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : path-like
        A file in UTF-8, with or without a byte order mark.
    error : type
        The `AttnVizError` to raise.
    hint : str
        Last sentence of the message, for example on how such files are created.
    constants : bool
        Whether to accept ``NaN`` and ``Infinity``, which are not valid JSON.

    Returns
    -------
    object
        Dictionaries, lists, text, numbers, True, False and None.

    Raises
    ------
    AttnVizError
        If the file is missing, cannot be read, is larger than 512 MiB, is not UTF-8 or not JSON, contains NaN, a
        number beyond floating point or a repeated name in an object, or is nested deeper than 100 levels. The
        message names the file.
    """
    return parse_json(_content(path, error, hint), path, error=error, hint=hint, constants=constants)


def parse_json(
    text: str | bytes,
    where: FilePath,
    *,
    error: type[AttnVizError] = AttnVizError,
    hint: str = "",
    constants: bool = False,
) -> Any:
    """Read JSON from text, or from UTF-8; see :func:`read_json`.

    Parameters
    ----------
    text : str or bytes
    where : str or path-like
        Origin of the text, for messages.
    error, hint, constants
        See `read_json`.

    Raises
    ------
    AttnVizError
        See `read_json`.

    Examples
    --------
    >>> parse_json('{"a": [1, 2.5, null]}', "an example")
    {'a': [1, 2.5, None]}
    >>> parse_json("[" * 100_000, "an example")
    Traceback (most recent call last):
    ...
    attnviz.errors.AttnVizError: an example is not JSON that can be read: it nests deeper than 100 levels.
    """
    try:
        content = json.loads(
            text.decode("utf-8-sig") if isinstance(text, bytes) else text,
            object_pairs_hook=_object,
            parse_float=None if constants else _finite,
            parse_constant=None if constants else _constant,
        )
        deep = _depth_above(content, DEEPEST)
    except RecursionError as damage:
        raise _refusal(where, "JSON", _TOO_DEEP, hint, error) from damage
    except UnicodeDecodeError as damage:
        raise _refusal(where, "JSON", "it is not UTF-8 text", hint, error) from damage
    except (TypeError, ValueError) as damage:
        raise _refusal(where, "JSON", str(damage), hint, error) from damage
    if deep:
        raise _refusal(where, "JSON", _TOO_DEEP, hint, error)
    return content


def read_toml(path: FilePath, *, error: type[AttnVizError] = AttnVizError, hint: str = "") -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path, error, hint
        See `read_json`.

    Raises
    ------
    AttnVizError
        See `read_json`; for TOML.
    """
    content = _content(path, error, hint)
    try:
        values = tomllib.loads(content.decode("utf-8"))
        deep = _depth_above(values, DEEPEST)
    except RecursionError as damage:
        raise _refusal(path, "TOML", _TOO_DEEP, hint, error) from damage
    except UnicodeDecodeError as damage:
        raise _refusal(path, "TOML", "it is not UTF-8 text", hint, error) from damage
    except ValueError as damage:
        raise _refusal(path, "TOML", str(damage), hint, error) from damage
    if deep:
        raise _refusal(path, "TOML", _TOO_DEEP, hint, error)
    return values


def as_json(
    content: Any,
    what: FilePath,
    *,
    error: type[AttnVizError] = AttnVizError,
    indent: int | None = 2,
    default: Callable[[Any], Any] | None = None,
) -> bytes:
    """Encode content as a JSON file: standard JSON in UTF-8, without NaN, with a final line break.

    Raises
    ------
    AttnVizError
        If JSON cannot represent the content. The message names the file.
    """
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False, default=default) + "\n"
    except (TypeError, ValueError, RecursionError) as problem:
        raise error(
            f"{what} holds text, finite numbers, lists and dictionaries, and what was given is not that: "
            f"{problem}."
        ) from problem
    # Escape paths that are not UTF-8, instead of failing after all work is done.
    return text.encode("utf-8", errors="backslashreplace")


_TOO_DEEP = f"it nests deeper than {DEEPEST} levels"


def _content(path: FilePath, error: type[AttnVizError], hint: str) -> bytes:
    place = checked_path(path, "the path of a file", error)
    try:
        size = place.stat().st_size
        if size > MOST_BYTES:
            limit = f"{place} has {size / 2**20:.0f} MiB; at most {MOST_BYTES // 2**20} MiB are read."
            raise error(f"{limit}{_and(hint)}")
        return _bytes(place)
    except FileNotFoundError as missing:
        raise error(f"{place} is missing.{_and(hint)}") from missing
    except OSError as damage:
        raise error(f"{place} cannot be read: {damage.strerror or damage}.{_and(hint)}") from damage


def _bytes(place: Path) -> bytes:
    with place.open("rb") as file:  # a device or a pipe has no size
        return file.read(MOST_BYTES + 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {shown_path(twice)} is in one object more than once")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond what a floating-point number can be")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _depth_above(content: Any, most: int) -> bool:
    """Return whether containers are nested deeper than `most`, without recursion."""
    level = [content]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _refusal(where: FilePath, kind: str, problem: str, hint: str, error: type[AttnVizError]) -> AttnVizError:
    return error(f"{where} is not {kind} that can be read: {problem.rstrip('.')}.{_and(hint)}")


def _and(hint: str) -> str:
    return f" {hint}" if hint else ""
