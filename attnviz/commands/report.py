"""``attnviz report``: one HTML file of a run, to be looked at and listened to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.terminal import announce, check_out, command, say


@command
def report(
    run: Annotated[Path, typer.Argument(help="Run folder, as generate and explain write it.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a report that is in the folder.")
    ] = False,
) -> dict[str, Any]:
    """Write one HTML file that plays a run's audio beside the map of every word; opens without network."""
    check_out(run / "report.html", overwrite=overwrite)
    announce("Reading the run")
    from attnviz.report import write_report

    path = write_report(run, overwrite=overwrite)
    say(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser.")
    return {"run": run, "report": path, "bytes": path.stat().st_size}
