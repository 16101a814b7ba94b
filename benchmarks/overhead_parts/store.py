"""Runs of a study, written immediately, so that an interrupted study can continue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class RunStore:
    """File with one JSON object per line; the first identifies the study.

    Parameters
    ----------
    path : pathlib.Path
        Path of the file, which is created by `start`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, study: Record, *, fresh: bool) -> int:
        """Open the file for a study and return the number of existing runs.

        Runs of another study (other settings, versions or code) are removed.
        """
        if not fresh and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            if lines and json.loads(lines[0]) == study:
                return len(lines) - 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(study) + "\n", encoding="utf-8")
        return 0

    def append(self, records: list[Record]) -> None:
        """Add runs that belong together, and write them immediately."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))

    def records(self, part: str) -> list[Record]:
        """Return the runs of one part in order."""
        lines = self.path.read_text(encoding="utf-8").splitlines()[1:]
        return [record for record in map(json.loads, lines) if record["part"] == part]
