"""The command line: ``attnviz generate`` and ``attnviz doctor``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

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
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the initial noise.")] = 0,
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
    with _reported(), _warnings_shown() as warned:
        _quieten_libraries()
        from attnviz import jobs

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
            warned=warned,
        )
        _say(repr(run.maps))
        _say(f"\nWritten to {run.folder}: {', '.join(run.files)}")


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, or hub name.")],
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
) -> None:
    """Check a checkpoint: its files, its licence, and two steps of generation with capture."""
    with _reported(), _warnings_shown():
        _quieten_libraries()
        from attnviz import doctor, jobs

        for check, found in doctor.examine(jobs.ModelChoice(model, revision, offline, device, precision)):
            _say(f"{check:<12}  {found}")
        console.print("[green]This checkpoint works.[/]")


def _say(text: str) -> None:
    """Print text as it is, whole lines, to be copied or searched: no markup, and wrapped by the terminal alone."""
    console.print(_printable(text), markup=False, highlight=False, soft_wrap=True)


def _complain(title: str, text: str, colour: str) -> None:
    complaints.print(f"[{colour}]{title}:[/] ", end="")
    complaints.print(_printable(text), markup=False, highlight=False, soft_wrap=True)


def _printable(text: str) -> str:
    """The text with what is not Unicode (a file name in another encoding) escaped."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


@contextmanager
def _warnings_shown() -> Iterator[list[str]]:
    """Print attnviz's own warnings as they come, and list them; ignore those of the libraries beneath.

    Python's ``-W`` option and ``PYTHONWARNINGS`` bring the libraries' back, as Python prints them.
    """
    warned: list[str] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, AttnVizWarning):
            warned.append(str(message))
            _complain("Warning", str(message), "yellow")
        else:
            complaints.print(
                _printable(warnings.formatwarning(message, category, filename, lineno, line)),
                end="", markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", AttnVizWarning)
        warnings.showwarning = show
        yield warned


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
        _complain(type(error).__name__, str(error), "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        complaints.print("Interrupted; nothing was written.")
        raise typer.Exit(130) from None
