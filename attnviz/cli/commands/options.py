"""Options shared by several commands: checkpoint, device, sampling, kept axes, output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from attnviz.io.choices import AXES, PRECISIONS

_MODELS = ("auffusion/auffusion", "auffusion/auffusion-full", "auffusion/auffusion-full-no-adapter")
_READOUTS = ("mean", "auffusion", "fitted", "sharp")


def complete(*names: str) -> Callable[[str], list[str]]:
    """Return a completion function for the names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=f"Checkpoint folder, or hub name: {', '.join(_MODELS)}; default: the bundled model. generate, "
        "explain and doctor also take other models, such as cvssp/audioldm2 and facebook/musicgen-small.",
        autocompletion=complete(*_MODELS),
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only the local cache of the hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps, ...; default: the best available.")]
Precision = Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}.", autocompletion=complete(*PRECISIONS))]

_RECOMMENDED = "default: the checkpoint's recommendation"
Steps = Annotated[
    int | None,
    typer.Option("--num-inference-steps", "--steps", min=1, max=1000, help=f"Denoising steps; {_RECOMMENDED}."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the initial noise.")]
Guidance = Annotated[
    float | None, typer.Option(help=f"Classifier-free guidance scale, active above 1; {_RECOMMENDED}.")
]
GuidanceInterval = Annotated[
    tuple[float, float] | None,
    typer.Option(help=f"Lowest and highest timestep with guidance, as fractions of the schedule; {_RECOMMENDED}."),
]
Negative = Annotated[str | None, typer.Option(help="Negative prompt.")]

RunFolder = Annotated[Path, typer.Option("--out", "-o", help="Output run folder.")]
ReplaceRun = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Axis to keep in the maps, step or head; repeatable.", autocompletion=complete(*AXES)),
]
SpecialTokens = Annotated[bool, typer.Option("--special-tokens", help="Also draw the start and end tokens.")]
Readout = Annotated[
    str,
    typer.Option(
        help="How layers are combined into one map: mean (of all layers), auffusion (the authors' rule), fitted "
        "(layers weighted by how well they located known sounds; bundled model only), sharp (shared out among the "
        "phrases and refined by the spectrogram, in columns of 40 ms), or one layer, such as "
        "down.0.0, mid.0 or up.1.0.",
        autocompletion=complete(*_READOUTS),
    ),
]
