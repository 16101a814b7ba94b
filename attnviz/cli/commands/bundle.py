"""``attnviz bundle``: combine trained parts into one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.terminal import command, say


@command
def bundle(
    out: Annotated[Path, typer.Argument(help="Checkpoint folder to create or update.")],
    vae: Annotated[Path | None, typer.Option(help="Run folder of the auto-encoder.")] = None,
    listener: Annotated[Path | None, typer.Option(help="Run folder of the listener.")] = None,
    unet: Annotated[Path | None, typer.Option(help="Run folder of the denoiser and its text encoder.")] = None,
    vocoder: Annotated[Path | None, typer.Option(help="Run folder of the vocoder.")] = None,
) -> dict[str, Any]:
    """Combine trained parts into one checkpoint.

    Weights are stored in half precision. Other parts of the checkpoint are kept.
    """
    from attnviz.errors import TrainingError
    from attnviz.training.bundling import bundle as put_together

    given = {"vae": vae, "listener": listener, "unet": unet, "vocoder": vocoder}
    runs = {part: run for part, run in given.items() if run is not None}
    if not runs:
        raise TrainingError("no run is given; give at least one of --vae, --listener, --unet, --vocoder.")
    replaced = put_together(runs, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"Written into {out} ({size / 1e6:.1f} MB in all): {', '.join(replaced)}")
    return {"out": out, "replaced": list(replaced), "bytes": size}
