"""``attnviz train``: train one part of the model from a configuration."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.commands.options import complete
from attnviz.cli.terminal import announce, command, complain, quieten_libraries, say

_CONFIGS = Path(__file__).parents[2] / "training" / "configs"  # that of attnviz.training, which imports PyTorch
_SHIPPED = tuple(sorted(path.stem for path in _CONFIGS.glob("*.toml")))


class Part(StrEnum):
    """Parts that can be trained."""

    VAE = "vae"
    VOCODER = "vocoder"
    UNET = "unet"
    LISTENER = "listener"
    TEXT = "text"
    CODEC = "codec"
    MUSICGEN = "musicgen"


class Objective(StrEnum):
    """Objectives of text encoders."""

    CLIP = "clip"
    CLAP = "clap"
    T5 = "t5"
    BERT = "bert"


@command
def train(
    part: Annotated[Part, typer.Argument(help="Part to train.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of ESC-10, as created by `attnviz data esc10`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output run folder.")],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            help=f"TOML file, or a bundled configuration: {', '.join(_SHIPPED)} (auffusion is the paper's "
            "recipe); default: the bundled one of the part's name, and of the --objective.",
            autocompletion=complete(*_SHIPPED),
        ),
    ] = None,
    objective: Annotated[
        Objective | None, typer.Option("--objective", help="Objective of a text encoder (part text only).")
    ] = None,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            "--captions",
            help="File of further captions for a text encoder: .jsonl with text, AudioGrounding's JSON, or one "
            "caption per line. Can be repeated; kept in the run's configuration.",
        ),
    ] = None,
    cache: Annotated[
        Path, typer.Option("--cache", help="Folder of composed scenes, 0.85 MB each, reused by other trainings.")
    ] = Path("~/.cache/attnviz"),
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPU threads; default: PyTorch's choice.")
    ] = None,
) -> dict[str, Any]:
    """Train one part of the model. A training can be interrupted, and resumed with --resume."""
    announce("Loading PyTorch")
    quieten_libraries()
    import torch

    from attnviz.errors import TrainingError
    from attnviz.training.checkpoints import how_to_go_on
    from attnviz.training.config import CONFIGS, read_config
    from attnviz.training.loop import train as train_part
    from attnviz.training.metrics import last_values

    if part is not Part.TEXT and (objective or captions):
        raise TrainingError("--objective and --captions are options of the part text only.")
    if part is Part.TEXT and config is None and objective is None:
        raise TrainingError(f"give the --objective of the text encoder ({', '.join(Objective)}), or a --config.")
    wanted = f"{part}-{objective}" if part is Part.TEXT else part
    if config is not None:  # an empty string is not a missing option
        wanted = config
    shipped = {path.stem: path for path in CONFIGS.glob("*.toml")}
    settings = read_config(shipped.get(wanted, wanted))
    if settings.part != part:
        raise TrainingError(f"{config} trains the {settings.part}, not the {part}.")
    if objective is not None and settings.objective.get("kind") != objective:
        raise TrainingError(f"{config} has the objective {settings.objective.get('kind')}, not {objective}.")
    if captions:
        more = {"captions": [str(path) for path in captions]}
        settings = dataclasses.replace(settings, objective={**settings.objective, **more})
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = train_part(settings, esc10=data, out=out, cache=cache, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        complain("Interrupted", how_to_go_on(out.expanduser()), "yellow")
        raise typer.Exit(130) from None
    quality = last_values(model.parent / "metrics.csv", "validation_")
    for name, value in quality.items():
        say(f"{name.replace('_', ' ')}: {value:.4g}")
    say(f"Written to {model}")
    return {"part": part.value, "model": model, "validation": quality}
