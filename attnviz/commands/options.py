"""Options that several commands have: the checkpoint and where it runs, how it samples, what is kept and where."""

from __future__ import annotations

from pathlib import Path
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

Steps = Annotated[int, typer.Option("--num-inference-steps", "--steps", min=1, max=1000, help="Denoising steps.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the initial noise.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance scale; in effect above 1.")]
Negative = Annotated[str | None, typer.Option(help="Negative prompt.")]

RunFolder = Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")]
ReplaceRun = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
Keep = Annotated[list[str] | None, typer.Option(help="Axis kept in the maps, step or head; may be given twice.")]
SpecialTokens = Annotated[bool, typer.Option("--special-tokens", help="Draw the start and end tokens too.")]
Readout = Annotated[str, typer.Option(help="How layers become one map: mean, auffusion, or a layer's name.")]
