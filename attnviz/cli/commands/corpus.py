"""``attnviz corpus``: generate or explain many clips, on one machine or many."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attnviz.cli.terminal import (
    DoneInPartError,
    announce,
    before_command,
    check_out,
    command,
    complaints,
    rows,
    say,
    talk,
)
from attnviz.errors import CorpusError
from attnviz.io.choices import check_exists

if TYPE_CHECKING:
    from attnviz.corpus import CorpusStatus

corpus = typer.Typer(
    no_args_is_help=True, callback=before_command, help="Generate or explain many clips, on one machine or many."
)

Folder = Annotated[Path, typer.Argument(help="Folder of a corpus.")]


class Executor(StrEnum):
    """What runs the workers."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


@corpus.command()
@command
def run(
    plan: Annotated[Path, typer.Argument(help="TOML file of the plan (docs/corpus.md).")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of the corpus, new or begun with this plan; default: named by its digest."
        ),
    ] = None,
    executor: Annotated[Executor, typer.Option(help="What runs the workers.")] = Executor.LOCAL,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Number of workers.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="Ray, Slurm: GPUs of each worker.")] = 0.0,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="Slurm: parameter of submitit, NAME=VALUE, such as slurm_partition=gpu; repeatable."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute the shards of failed clips again.")
    ] = False,
) -> dict[str, Any]:
    """Compute the missing shards of a plan.

    The command can be interrupted at any time; the same command resumes it.
    """
    check_exists(plan, "plan", CorpusError)
    parameters = dict(map(_parameter, slurm or ()))
    announce("Reading the plan, its clips and the model's files")
    from attnviz.corpus import run_corpus

    try:
        with _progress() as shown:
            status = run_corpus(
                plan, out, executor=executor.value, workers=workers, gpus=gpus, slurm=parameters,
                retry_failed=retry_failed, progress=shown,
            )  # fmt: skip
    except KeyboardInterrupt:
        complaints.print("Interrupted; finished shards are kept, and the same command computes the others.")
        raise typer.Exit(130) from None
    result = _told(status)
    say(f"One table of all: attnviz corpus collect {shlex.quote(status.folder)} --out NAME.parquet")
    return result


@corpus.command()
@command
def status(folder: Folder) -> dict[str, Any]:
    """Print the progress, the failed clips and the cost of a clip."""
    from attnviz.corpus import Corpus

    return _told(Corpus(folder).status())


@corpus.command()
@command
def collect(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    align: Annotated[
        bool, typer.Option("--align", help="Also score all maps together, with controls and intervals.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> dict[str, Any]:
    """Check all shards and write their tables to one file."""
    if out.suffix.lower() != ".parquet":
        raise CorpusError(f"--out {out} has the suffix {out.suffix!r}; the table is written as .parquet.")
    check_out(out, overwrite=overwrite)
    from attnviz.corpus import Corpus

    found = Corpus(folder)
    status = found.status()
    aligned = None
    if align:  # first, so that nothing is written where nothing can be scored
        with _parts() as shown:
            aligned = found.align(progress=shown)
    count = found.collect(out, overwrite=overwrite)
    say(f"{count} rows written to {out}")
    result: dict[str, Any] = {"out": out, "rows": count, "clips_failed": status.clips_failed}
    if aligned is not None:
        say(f"\n{aligned.summary()}")
        result |= {"scores": rows(aligned.pooled.scores), "differences": rows(aligned.pooled.differences)}
    if status.clips_warned:
        say(f"{status.clips_warned} of {status.clips} clips have warnings; see the column warnings.")
    if status.clips_failed:
        raise DoneInPartError(
            f"{status.clips_failed} of {status.clips} clips failed: they are rows without scores, with a reason.",
            result,
        )
    return result


def _told(status: CorpusStatus) -> dict[str, Any]:
    """Print a status; raise if a part is missing or failed."""
    say(str(status))
    result = {**asdict(status), "complete": status.complete}
    if not status.complete:
        raise DoneInPartError(
            f"{status.shards_done} of {status.shards} shards are finished; attnviz corpus run computes the rest.",
            result,
        )
    if status.clips_failed:
        advice = (
            "is a setting of the plan wrong? A changed plan needs a folder of its own."
            if status.clips_failed == status.clips
            else "--retry-failed computes their shards again."
        )
        raise DoneInPartError(f"{status.clips_failed} of {status.clips} clips failed; {advice}", result)
    return result


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CorpusError(f"--slurm {text!r} is not NAME=VALUE, such as slurm_partition=gpu or timeout_min=60.")
    return name, int(value) if value.isdecimal() else value


@contextmanager
def _parts() -> Iterator[Callable[[str, float], None]]:
    """Provide a function that shows which part of the work is done, on stderr."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(),
        console=complaints, transient=True, disable=talk().quiet or not complaints.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("Reading", total=1.0)
        yield lambda part, share: bar.update(task, description=part, completed=share)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Provide a function that shows how many shards are finished, on stderr."""
    bar = Progress(
        TextColumn("Shards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=complaints, transient=True, disable=talk().quiet or not complaints.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, shards: bar.update(task, completed=done, total=shards)
