"""The command line: ``attnviz generate`` and ``attnviz doctor``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from attnviz.errors import AttnVizError, AttnVizWarning

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Which sound did each word of a prompt make, when, and at which frequencies?",
)
console = Console()
complaints = Console(stderr=True)

Model = Annotated[
    str, typer.Option("--model", "-m", help="Checkpoint folder, or hub name such as auffusion/auffusion.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Offline = Annotated[bool, typer.Option("--offline", help="Look only into the local cache of the hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps, ...; the best there is where left out.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]


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
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial noise.")] = 0,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; in effect above 1.")] = 7.5,
    negative: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    duration: Annotated[float, typer.Option(help="Seconds of audio, at most 10.24.")] = 10.0,
    keep: Annotated[
        list[str] | None, typer.Option(help="Axis kept in the maps, step or head; may be given twice.")
    ] = None,
    special_tokens: Annotated[
        bool, typer.Option("--special-tokens", help="Draw the start and end tokens too.")
    ] = False,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")] = False,
) -> None:
    """Generate audio from a prompt, with a map of every word on the spectrogram."""
    with _reported():
        _quieten_libraries()
        from attnviz import jobs

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AttnVizWarning)
            request = jobs.Generation(
                prompt=prompt,
                steps=steps,
                seed=seed,
                guidance_scale=guidance,
                negative_prompt=negative,
                duration=duration,
                keep=tuple(keep or ()),
            )
            run = jobs.generate(
                request,
                model=jobs.ModelChoice(model, revision, offline, device, precision),
                out=out,
                special_tokens=special_tokens,
                overwrite=overwrite,
                caught=caught,
            )
        for warning in caught:
            if issubclass(warning.category, AttnVizWarning):
                complaints.print("[yellow]Warning:[/] ", end="")
                complaints.print(str(warning.message), markup=False, highlight=False, soft_wrap=True)
        console.print(repr(run.maps), markup=False, highlight=False, soft_wrap=True)
        console.print(
            f"\nWritten to [bold]{run.folder}[/]: " + ", ".join(run.files), highlight=False, soft_wrap=True
        )


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, or hub name.")],
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
) -> None:
    """Check a checkpoint: its files, its licence, and two steps of generation with capture."""
    with _reported():
        _quieten_libraries()
        from attnviz import jobs

        choice = jobs.ModelChoice(model, revision, offline, device, precision)
        table = Table("check", "found", box=None, header_style="bold")
        for check, found in jobs.examine(choice):
            table.add_row(check, found)
        console.print(table)
        console.print("[green]This checkpoint works.[/]")


def _quieten_libraries() -> None:
    """Keep what diffusers and transformers say about themselves off the terminal (errors still show)."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def _reported() -> Iterator[None]:
    """Print attnviz's own errors as one message and stop with exit status 1; let bugs show their traceback."""
    try:
        yield
    except AttnVizError as error:
        complaints.print(f"[red]{type(error).__name__}:[/] ", end="")
        complaints.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        complaints.print("Interrupted; nothing was written.")
        raise typer.Exit(130) from None
