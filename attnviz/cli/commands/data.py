"""``attnviz data``: get training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.terminal import announce, before_command, check_out, command, say
from attnviz.errors import AudioError
from attnviz.io.choices import check_exists

# The callback also keeps the data set's name as a command: typer omits the name of a lone command.
data = typer.Typer(no_args_is_help=True, callback=before_command, help="Get recordings for training.")


@data.command()
@command
def esc10(
    out: Annotated[Path, typer.Argument(help="Folder to create.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder or zip file of ESC-10; default: download the archive (40 MB)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing copy of ESC-10.")] = False,
) -> dict[str, Any]:
    """Download ESC-10 and verify it.

    ESC-10 has 400 recordings of ten classes. With --from it is copied from a local folder or zip file.
    """
    check_out(out, overwrite=overwrite)
    if source is not None:
        check_exists(source, "folder or zip file", AudioError)
    announce("Getting ESC-10")
    from attnviz.scenes import fetch_esc10

    folder = fetch_esc10(out, source=source, overwrite=overwrite)
    say(f"Written to {folder}")
    return {"out": folder}
