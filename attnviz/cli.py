"""The command line: ``attnviz generate``, ``attnviz doctor`` and those of `attnviz.commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from attnviz.commands.align import align
from attnviz.commands.bundle import bundle
from attnviz.commands.data import data
from attnviz.commands.edit import edit
from attnviz.commands.explain import explain
from attnviz.commands.figures import figures
from attnviz.commands.listen import listen
from attnviz.commands.options import (
    Device,
    Guidance,
    Keep,
    Model,
    Negative,
    Offline,
    Precision,
    ReplaceRun,
    Revision,
    RunFolder,
    Seed,
    SpecialTokens,
    Steps,
)
from attnviz.commands.report import report
from attnviz.commands.train import train
from attnviz.terminal import console, quieten_libraries, reported, say, warnings_shown

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Which sound did each word of a prompt make, when, and at which frequencies?",
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Show the version where asked for."""
    if version:
        import attnviz

        console.print(f"attnviz {attnviz.__version__}")
        raise typer.Exit


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What is to be heard, for example 'a dog barks'.")],
    out: RunFolder,
    model: Model = None,
    num_inference_steps: Steps = 50,
    seed: Seed = 0,
    guidance: Guidance = 7.5,
    negative: Negative = None,
    duration: Annotated[float, typer.Option(help="Seconds of audio, at most 10.24.")] = 10.0,
    keep: Keep = None,
    special_tokens: SpecialTokens = False,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> None:
    """Generate audio from a prompt, with a map of every word on the spectrogram."""
    with reported(), warnings_shown() as warned:
        quieten_libraries()
        from attnviz import jobs

        request = jobs.Generation(
            prompt=prompt,
            num_inference_steps=num_inference_steps,
            seed=seed,
            guidance_scale=guidance,
            negative_prompt=negative,
            duration=duration,
            keep=tuple(keep or ()),
        )
        run = jobs.generate(
            request,
            model=jobs.ModelChoice(model, revision, offline, device, precision),
            place=jobs.RunPlace(out, overwrite=overwrite, special_tokens=special_tokens),
            warned=warned,
        )
        say(repr(run.maps))
        say(f"\nWritten to {run.folder}: {', '.join(run.files)}")


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(help="Checkpoint folder, or hub name; left out: bundled.")] = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
) -> None:
    """Check a checkpoint: its files, its licence, and two steps of generation with capture."""
    with reported(), warnings_shown():
        quieten_libraries()
        from attnviz import doctor, jobs

        for check, found in doctor.examine(jobs.ModelChoice(model, revision, offline, device, precision)):
            say(f"{check:<12}  {found}")
        console.print("[green]This checkpoint works.[/]")


app.command()(align)
app.command()(explain)
app.command()(figures)
app.command()(listen)
app.command()(report)
app.command()(train)
app.command()(bundle)
app.add_typer(data, name="data")
app.add_typer(edit, name="edit")
