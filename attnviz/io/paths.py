"""Check paths given by users before they are used."""

from __future__ import annotations

import os
from pathlib import Path

from attnviz.errors import AttnVizError

FilePath = str | os.PathLike[str]

_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes on Linux; other systems allow no more


def checked_path(path: FilePath, what: str = "the path", error: type[AttnVizError] = AttnVizError) -> Path:
    """Return a path with ``~`` replaced by the home folder, or raise if it is invalid.

    Parameters
    ----------
    path : str or path-like
        Path given by the user. The file need not exist.
    what : str
        Description of the path for messages.
    error : type
        The `AttnVizError` to raise.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    AttnVizError
        If `path` is not a path or string, is empty, contains a null character, names the home of an unknown user,
        or is longer than file systems allow.

    Examples
    --------
    >>> checked_path("runs/dog").name
    'dog'
    >>> checked_path("", "--out")
    Traceback (most recent call last):
    ...
    attnviz.errors.AttnVizError: --out is empty; the path of a file or folder is needed.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise error(f"{what} is a {type(path).__name__}; a path is needed, as text or pathlib.Path.")
    text = os.fspath(path)
    if not text:
        raise error(f"{what} is empty; the path of a file or folder is needed.")
    if "\0" in text:
        raise error(f"{what} {shown_path(text)} holds a null character, which no path can.")
    try:
        expanded = Path(text).expanduser()
    except RuntimeError as unknown:
        raise error(f"{what} {shown_path(text)} names the home folder of an unknown user.") from unknown
    longest = max((len(os.fsencode(part)) for part in expanded.parts), default=0)
    if longest > _LONGEST_NAME or len(os.fsencode(expanded)) > _LONGEST_PATH:
        raise error(
            f"{what} {shown_path(text)} is too long: a name has at most {_LONGEST_NAME} bytes and a path "
            f"{_LONGEST_PATH}. Was a text given in place of a path?"
        )
    return expanded


def shown_path(path: FilePath) -> str:
    """Return a path for messages, quoted and truncated if it is long."""
    text = repr(os.fspath(path))
    return text if len(text) <= 120 else f"{text[:80]}...{text[-20:]}"
