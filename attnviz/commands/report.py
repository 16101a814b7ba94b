"""``attnviz report``: one HTML file of a run, or of two, to be looked at and listened to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.terminal import announce, check_out, command, say


@command
def report(
    run: Annotated[Path, typer.Argument(help="Run folder, as generate, explain and edit write it.")],
    other: Annotated[
        Path | None, typer.Argument(help="Another run folder, to stand beside the first.", metavar="[RUN]")
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option("--phrase", "-p", help="A phrase of the prompt to offer; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="HTML file to write; left out: RUN/report.html, of two runs RUN-RUN.html beside."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that is there.")] = False,
) -> dict[str, Any]:
    """Write one HTML file that plays a run's audio beside the map of every word; opens without network.

    Two runs stand side by side, with one clock and one colour scale; so do an edit and its source.
    """
    if out is not None:
        target = out
    elif other is None:
        target = run / "report.html"
    else:
        target = run.resolve().with_name(f"{run.resolve().name}-{other.resolve().name}.html")
    check_out(target, overwrite=overwrite)
    announce("Reading the run" if other is None else "Reading the runs")
    from attnviz.report import write_report

    path = write_report(run, other, out=target, phrases=phrase or (), overwrite=overwrite)
    say(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser.")
    runs = {"run": run} if other is None else {"run": run, "other": other}
    return {**runs, "report": path, "bytes": path.stat().st_size}
