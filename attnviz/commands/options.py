"""Options that several commands have: the checkpoint and where it runs, how it samples, what is kept and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

_MODELS = ("auffusion/auffusion", "auffusion/auffusion-full", "auffusion/auffusion-full-no-adapter")
_READOUTS = ("mean", "auffusion", "fitted")
_PRECISIONS = ("float32", "bfloat16", "float16")


def complete(*names: str) -> Callable[[str], list[str]]:
    """Return what completes a word of the command line to one of the names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=f"Checkpoint folder, or a name on the hub: {', '.join(_MODELS)}; the bundled model if left out.",
        autocompletion=complete(*_MODELS),
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Look only into the local cache of the hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps, ...; the best there is where left out.")]
Precision = Annotated[str, typer.Option(help=f"{', '.join(_PRECISIONS)}.", autocompletion=complete(*_PRECISIONS))]

_RECOMMENDED = "what the checkpoint recommends if left out"
Steps = Annotated[
    int | None,
    typer.Option("--num-inference-steps", "--steps", min=1, max=1000, help=f"Denoising steps; {_RECOMMENDED}."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the initial noise.")]
Guidance = Annotated[
    float | None, typer.Option(help=f"Classifier-free guidance scale, in effect above 1; {_RECOMMENDED}.")
]
GuidanceInterval = Annotated[
    tuple[float, float] | None,
    typer.Option(help=f"Lowest and highest timestep with guidance, as fractions of all; {_RECOMMENDED}."),
]
Negative = Annotated[str | None, typer.Option(help="Negative prompt.")]

RunFolder = Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")]
ReplaceRun = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        help="Axis kept in the maps, step or head; may be given twice.", autocompletion=complete("step", "head")
    ),
]
SpecialTokens = Annotated[bool, typer.Option("--special-tokens", help="Draw the start and end tokens too.")]
Readout = Annotated[
    str,
    typer.Option(
        help="How layers become one map: mean (of all layers), auffusion (the authors' rule), fitted (layers "
        "weighed by how well they found known sounds; of the bundled model alone), or one layer, such as "
        "down.0.0, mid.0 or up.1.0.",
        autocompletion=complete(*_READOUTS),
    ),
]
