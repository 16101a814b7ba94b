"""``attnviz clean``: remove what killed runs left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.terminal import command, say


@command
def clean(
    path: Annotated[Path, typer.Argument(help="Folder to search, including subfolders.")] = Path(),
) -> dict[str, Any]:
    """Remove the partial files of killed runs.

    What a killed run had moved aside is restored.

    Only files of processes that ran on this machine and have ended are touched. Files of running processes and
    of other machines (on a shared disk) are left alone.
    """
    from attnviz.errors import OutputError
    from attnviz.io.leftovers import clear, find_leftovers
    from attnviz.io.paths import checked_path

    folder = checked_path(path, "the folder to clean", OutputError)
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist.")
    removed: list[Path] = []
    restored: list[Path] = []
    kept: list[Path] = []
    for leftover in list(find_leftovers(folder)):
        if not leftover.dead:
            kept.append(leftover.path)
        elif (place := clear(leftover)) is not None:
            restored.append(place)
        else:
            (kept if leftover.path.exists() else removed).append(leftover.path)
    for title, paths in (("removed", removed), ("put back", restored), ("left alone", kept)):
        for one in paths:
            say(f"{title}  {one}")
    say(f"{len(removed)} removed, {len(restored)} put back, {len(kept)} left alone")
    return {"removed": removed, "restored": restored, "left": kept}
