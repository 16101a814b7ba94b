"""Who recorded what, under which licence: the list in ESC-10's README.md."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from attnviz.errors import AudioError

COLUMNS = ("recording", "sound", "fold", "title", "url", "author", "licence", "licence_url")

_HEADING = re.compile(r"\*\*\d{3} - (?P<sound>[^*]+)\*\*:?\s*")
_ENTRY = re.compile(
    r"- \*\*\[(?P<recording>(?P<fold>\d)-\d+-[A-Z])\.ogg\]\([^)]*\)\*\*:\s+clip derived from "
    r"\[(?P<title>.*)\]\((?P<url>\S+)\) by \*(?P<author>.*)\* "
    r"\(\[(?P<licence>[^\]]+)\]\((?P<licence_url>\S+)\)\)\s*"
)


def attributions(folder: str | os.PathLike[str], *, required: bool = True) -> pd.DataFrame:
    """Read who made each recording of ESC-10, and its licence.

    Parameters
    ----------
    folder : path-like
        A folder of ESC-10, with its README.md.
    required : bool
        Whether a missing or empty list is an error; otherwise the table has no rows.

    Returns
    -------
    pandas.DataFrame
        One row a recording the README names (all 400, also where files are left out): ``recording`` (as
        "1-100032-A"), ``sound``, ``fold``, ``title``, ``url``, ``author``, ``licence`` (CC0, CC-BY or
        CC-Sampling+), ``licence_url``.

    Raises
    ------
    AudioError
        There is no README.md, or it lists no recording, and `required` is set.
    """
    path = Path(folder) / "README.md"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        if required:
            raise AudioError(f"{path}, which lists the authors of the recordings, cannot be read.") from error
        lines = []
    rows: list[dict[str, object]] = []
    sound = ""
    for line in lines:
        if heading := _HEADING.fullmatch(line):
            sound = heading["sound"]
        elif entry := _ENTRY.fullmatch(line):
            rows.append({**entry.groupdict(), "fold": int(entry["fold"]), "sound": sound})
    if required and not rows:
        raise AudioError(f"{path} lists no recording; is it the README.md of ESC-10?")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"fold": int})
