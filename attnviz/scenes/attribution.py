"""Authors and licences of the ESC-10 recordings, from the README.md of the data set."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import AudioError

COLUMNS = ("recording", "sound", "fold", "title", "url", "author", "licence", "licence_url")

_HEADING = re.compile(r"\*\*\d{3} - (?P<sound>[^*]+)\*\*:?\s*")
_ENTRY = re.compile(
    r"- \*\*\[(?P<recording>(?P<fold>\d)-\d+-[A-Z])\.ogg\]\([^)]*\)\*\*:\s+clip derived from "
    r"\[(?P<title>.*)\]\((?P<url>\S+)\) by \*(?P<author>.*)\* "
    r"\(\[(?P<licence>[^\]]+)\]\((?P<licence_url>\S+)\)\)\s*"
)


@public
def attributions(folder: str | os.PathLike[str], *, required: bool = True) -> pd.DataFrame:
    """Read the author and licence of each ESC-10 recording.

    Parameters
    ----------
    folder : path-like
        Folder of ESC-10 that contains README.md.
    required : bool
        Raise an error if the list is missing or empty. Otherwise, return an empty table.

    Returns
    -------
    pandas.DataFrame
        One row per recording listed in the README (all 400, even if files are missing): ``recording`` (such as
        "1-100032-A"), ``sound``, ``fold``, ``title``, ``url``, ``author``, ``licence`` (CC0, CC-BY or
        CC-Sampling+) and ``licence_url``.

    Raises
    ------
    AudioError
        If `required` is True and README.md does not exist or lists no recordings.
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
