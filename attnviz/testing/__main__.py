"""``python -m attnviz.testing FOLDER``: write a tiny random-weight checkpoint to try commands on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnviz.errors import AttnVizError
from attnviz.io.storage import whole_folder
from attnviz.pipelines.checkpoints import CHECKPOINT
from attnviz.testing import write_adapter_checkpoint, write_plain_checkpoint


def main(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint is to be.")],
    plain: Annotated[bool, typer.Option("--plain", help="Plain Stable Diffusion layout.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
) -> None:
    """Write a tiny random-weight checkpoint in a published layout: its audio is noise, its maps mean nothing."""
    try:
        with whole_folder(folder, overwrite=overwrite, kind=CHECKPOINT) as temporary:
            (write_plain_checkpoint if plain else write_adapter_checkpoint)(temporary)
    except AttnVizError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"A tiny checkpoint with random weights is in {folder}.")


typer.run(main)
