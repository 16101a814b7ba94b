"""``attnviz report``: write an HTML report of one or two runs, with audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.terminal import announce, check_out, command, say
from attnviz.io.choices import check_run


@command
def report(
    run: Annotated[Path, typer.Argument(help="Run folder of generate, explain or edit.")],
    other: Annotated[
        Path | None, typer.Argument(help="Second run folder, shown beside the first.", metavar="RUN")
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option("--phrase", "-p", help="Phrase of the prompt to offer, repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="HTML file; default: RUN/report.html, or for two runs FIRST-SECOND.html beside the first.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
) -> dict[str, Any]:
    """Write one HTML page with the audio and maps of a run.

    The page works without a network. Two runs, or an edit and its source, are shown side by side with one clock
    and one colour scale. The page of two runs is written beside the first folder, as FIRST-SECOND.html.
    """
    for folder in (run,) if other is None else (run, other):
        check_run(folder)
    if out is not None:
        target = out
    elif other is None:
        target = run / "report.html"
    else:
        target = run / ".." if run.name in ("", "..") else run.parent
        target = target / f"{run.resolve().name}-{other.resolve().name}.html"
    check_out(target, overwrite=overwrite)
    announce("Reading the run" if other is None else "Reading the runs")
    from attnviz.report import write_report

    path = write_report(run, other, out=target, phrases=phrase or (), overwrite=overwrite)
    say(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser.")
    runs = {"run": run} if other is None else {"run": run, "other": other}
    return {**runs, "report": path, "bytes": path.stat().st_size}
