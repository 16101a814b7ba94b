"""``attnviz diagnose``: what is wrong with a run's maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.commands.options import Readout
from attnviz.terminal import announce, command, rows, say


@command
def diagnose(
    run: Annotated[Path, typer.Argument(help="Run folder, as generate, explain and edit write it.")],
    readout: Readout = "mean",
) -> dict[str, Any]:
    """Say by name and number what is wrong with a run's maps or sound: uniform, alike for all words, silent."""
    announce("Reading the maps")
    from attnviz.diagnosis import diagnose as look
    from attnviz.report.saved_run import read_saved_run

    found = look(read_saved_run(run).maps, readout=readout)
    say(found.summary())
    return {"run": run, "prompt": found.prompt, "found": found.found, "findings": rows(found.table)}
