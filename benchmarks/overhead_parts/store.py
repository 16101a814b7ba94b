"""The runs of a study, written as they come, so that a cut study goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class RunStore:
    """One JSON object a line; the first says what study it is.

    Parameters
    ----------
    path : pathlib.Path
        File; made by `start`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, study: Record, *, fresh: bool) -> int:
        """Open the file for a study; return how many of its runs are there already.

        Runs of another study (other settings, versions or code) are dropped.
        """
        if not fresh and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            if lines and json.loads(lines[0]) == study:
                return len(lines) - 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(study) + "\n", encoding="utf-8")
        return 0

    def append(self, records: list[Record]) -> None:
        """Add runs that belong together; they are written at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))

    def records(self, part: str) -> list[Record]:
        """Runs of one part, in the order in which they were made."""
        lines = self.path.read_text(encoding="utf-8").splitlines()[1:]
        return [record for record in map(json.loads, lines) if record["part"] == part]
