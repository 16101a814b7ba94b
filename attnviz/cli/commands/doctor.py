"""``attnviz doctor``: check a checkpoint."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from attnviz.cli.commands.options import Device, Offline, Precision, Revision
from attnviz.cli.terminal import announce, command, quieten_libraries, say, show, talk
from attnviz.io.choices import check_model, check_precision


@command
def doctor(
    model: Annotated[str | None, typer.Argument(help="Checkpoint folder or hub name; default: bundled.")] = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
) -> dict[str, Any]:
    """Check a checkpoint by a short generation.

    Print its files, its licence, and what two denoising steps with capture find.
    """
    if model is not None:
        check_model(model)
    check_precision(precision)
    announce("Loading PyTorch")
    quieten_libraries()
    from attnviz.cli import doctor as examining
    from attnviz.cli import jobs

    found = {}
    choice = jobs.ModelChoice(model, revision, offline, device, precision, progress=not talk().quiet)
    for check, finding in examining.examine(choice):
        say(f"{check:<24} {finding}")
        found[check] = finding
    show("[green]This checkpoint works.[/]")
    return {"works": True, "found": found}
