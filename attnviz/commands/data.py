"""``attnviz data``: what models are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnviz.terminal import reported, say, warnings_shown

data = typer.Typer(no_args_is_help=True, help="Get the recordings that models are trained on.")


@data.callback()
def main() -> None:
    """Keep the data set's name a command of its own: a lone one would be left out of the line."""


@data.command()
def esc10(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder or zip file of ESC-10; the public archive (40 MB) if left out."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing copy of ESC-10.")] = False,
) -> None:
    """Download ESC-10, 400 recordings of ten classes, or take it from a copy; check it either way."""
    with reported(), warnings_shown():
        from attnviz.sounds import fetch_esc10

        say(f"Written to {fetch_esc10(out, source=source, overwrite=overwrite)}")
