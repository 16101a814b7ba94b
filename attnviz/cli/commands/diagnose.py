"""``attnviz diagnose``: find known problems of a run's maps and audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.commands.options import Readout
from attnviz.cli.terminal import announce, command, in_options, rows, say
from attnviz.io.choices import check_run


@command
def diagnose(
    run: Annotated[Path, typer.Argument(help="Run folder of generate, explain or edit.")],
    readout: Readout = "mean",
) -> dict[str, Any]:
    """List known problems of the maps and audio of a run.

    Among them: uniform maps, equal maps for all words, silence and clipping.
    """
    check_run(run)
    announce("Reading the maps")
    from attnviz.diagnosis import diagnose as look
    from attnviz.report.saved_run import read_saved_run

    saved = read_saved_run(run)
    found = look(saved.maps, readout=readout, audio=saved.audio)
    say(in_options(found.summary()))
    return {"run": run, "prompt": found.prompt, "found": found.found, "findings": rows(found.table)}
