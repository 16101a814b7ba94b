"""Options that several commands have: which checkpoint, and where and how precisely it runs."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Checkpoint folder, or hub name such as auffusion/auffusion; left out: bundled."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Look only into the local cache of the hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps, ...; the best there is where left out.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
