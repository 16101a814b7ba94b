"""``attnviz explain``: maps of a real clip for a caption."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from attnviz.cli.commands.options import (
    Device,
    Keep,
    Model,
    Offline,
    Precision,
    Readout,
    ReplaceRun,
    Revision,
    RunFolder,
    SpecialTokens,
    complete,
)
from attnviz.cli.commands.running import begun, written
from attnviz.cli.commands.scores import show_scores
from attnviz.cli.terminal import command, rows, say, talk
from attnviz.io.choices import METHODS, check_method


class Latents(StrEnum):
    """The input of the model."""

    NOISING = "noising"
    INVERSION = "inversion"
    PREDICTED = "predicted"


@command
def explain(
    clip: Annotated[Path, typer.Argument(help="Audio file, such as WAV, FLAC, OGG or MP3, of any length.")],
    caption: Annotated[str, typer.Argument(help="Description of the clip, for example 'a dog barks'.")],
    out: RunFolder,
    events: Annotated[
        Path | None,
        typer.Option("--events", "-e", help="File of the clip's sound events, in any supported format."),
    ] = None,
    readout: Readout = "mean",
    model: Model = None,
    method: Annotated[
        str,
        typer.Option(help=f"Method of attribution: {', '.join(METHODS)}.", autocompletion=complete(*METHODS)),
    ] = "attention",
    latents: Annotated[
        Latents,
        typer.Option(
            help="Latents of the model: the noised clip, its DDIM inversion, or its predicted clean clip."
        ),
    ] = Latents.NOISING,
    timestep: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Timestep at which maps are read, repeatable; default: 50, 150, 250, 400."),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="Noising, predicted: noise draws per timestep; default: 4.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Noising, predicted: seed of the noise; default: 0.")
    ] = None,
    inversion_steps: Annotated[
        int | None, typer.Option(min=1, help="Inversion: steps over the whole schedule; default: 20.")
    ] = None,
    look_timestep: Annotated[
        int | None,
        typer.Option(min=0, help="Predicted: timestep given to the model with the predicted clip; default: 0."),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Overlap in seconds of the windows of a clip over 10.24 s, or over the longest of the model; "
            "default: 2.56, or a quarter of a shorter window."
        ),
    ] = None,
    own_level: Annotated[
        bool,
        typer.Option(
            "--own-level",
            help="Show the model the clip at its own level instead of scaled to the peak of its training "
            "(Auffusion: 0.95). The run's audio.wav always has the clip's own level.",
        ),
    ] = False,
    randomize: Annotated[
        str | None,
        typer.Option(help="Randomize the weights of this many blocks from the output, or up to the named block."),
    ] = None,
    randomize_seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the randomization; default: 0.")
    ] = None,
    keep: Keep = None,
    special_tokens: SpecialTokens = False,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Map every word of a caption on a recording.

    The maps are also scored if the events of the recording are given.
    """
    check_method(method)
    begun(
        out,
        overwrite=overwrite,
        precision=precision,
        model=model,
        keep=keep or (),
        prompts=(caption,),
        clip=clip,
        events=events,
    )
    from attnviz.cli import jobs
    from attnviz.cli.explain_job import Explanation, explain_to_run

    request = Explanation(
        clip=clip,
        prompt=caption,
        events=events,
        method=method,
        latents=latents.value,
        timesteps=tuple(timestep or ()),
        draws=draws,
        seed=seed,
        inversion_steps=inversion_steps,
        look_timestep=look_timestep,
        overlap=overlap,
        normalize=not own_level,
        randomize=int(randomize) if randomize is not None and randomize.isdecimal() else randomize or 0,
        randomize_seed=randomize_seed,
        keep=tuple(keep or ()),
        readout=readout,
    )
    run, scored = explain_to_run(
        request,
        model=jobs.ModelChoice(model, revision, offline, device, precision, progress=not talk().quiet),
        place=jobs.RunPlace(out, overwrite=overwrite, special_tokens=special_tokens, readout=readout),
        warned=talk().warned,
    )
    if scored is not None:
        show_scores(scored.events, scored.alignment)
        say("")
    result = written(run)
    return result if scored is None else {**result, "phrases": rows(scored.alignment.table)}
