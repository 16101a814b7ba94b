"""``python -m attnviz.testing FOLDER``: write a tiny random-weight checkpoint for trying out commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnviz.errors import AttnVizError
from attnviz.io.storage import whole_folder
from attnviz.models.pipelines.checkpoints import CHECKPOINT
from attnviz.testing import write_adapter_checkpoint, write_plain_checkpoint


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    plain: Annotated[bool, typer.Option("--plain", help="Plain Stable Diffusion layout.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
) -> None:
    """Write a tiny checkpoint with random weights in a published layout; its audio is noise."""
    try:
        with whole_folder(folder, overwrite=overwrite, kind=CHECKPOINT) as temporary:
            (write_plain_checkpoint if plain else write_adapter_checkpoint)(temporary)
    except AttnVizError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"A tiny checkpoint with random weights was written to {folder}.")


typer.run(main)
