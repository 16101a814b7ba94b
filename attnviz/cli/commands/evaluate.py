"""``attnviz evaluate``: metrics of generated audio against reference audio and captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from attnviz.cli.commands.options import Device, Offline, complete
from attnviz.cli.terminal import (
    announce,
    check_out,
    command,
    complaints,
    printable,
    quieten_libraries,
    rows,
    say,
    show,
    talk,
)
from attnviz.errors import EvaluationError
from attnviz.io.choices import check_exists
from attnviz.io.paths import checked_path

if TYPE_CHECKING:
    from attnviz.evaluation import Evaluation

_EMBEDDERS = ("listener", "laion/clap-htsat-unfused")


@command
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Folders of audio or of runs; or run folders.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", "-r", help="Folder of real audio or of runs that the clips are compared with."
        ),
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder",
            "-e",
            help="listener (the bundled one, default), or folder or hub name of a CLAP or PE-A-Frame model of "
            "transformers; repeatable.",
            autocompletion=complete(*_EMBEDDERS),
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps embeddings between calls.")] = None,
    resamples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Bootstrap resamples of the intervals; 0: none.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the resamples.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file for the table.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing CSV file.")] = False,
    device: Device = None,
    offline: Offline = False,
) -> dict[str, Any]:
    """Compute FD, KAD, IS, KL and CLAP score of generated audio.

    Captions are the prompts of runs, or those of metadata.csv or metadata.jsonl (file_name, caption) in a folder
    of audio. Values of the bundled listener do not compare with those of papers.
    """
    if out is not None:
        if out.suffix.lower() != ".csv":
            raise EvaluationError(f"--out {out} has the suffix {out.suffix!r}; the table is written as .csv.")
        check_out(out, overwrite=overwrite)
    for folder in (*runs, *([] if reference is None else [reference])):
        check_exists(folder, "the folder", EvaluationError)
    if cache is not None and checked_path(cache, "the cache", EvaluationError).is_file():
        raise EvaluationError(f"the cache {cache} is a file; give a folder, which need not exist yet.")
    announce("Loading PyTorch and the embedder")
    quieten_libraries()
    from attnviz.cli.jobs import ModelChoice
    from attnviz.evaluation import evaluate as compute
    from attnviz.evaluation import load_embedder, read_clips
    from attnviz.io.storage import whole_or_nothing

    place = whole_or_nothing(out, overwrite=overwrite, replaceable=_is_table) if out is not None else nullcontext()
    with place as partial:
        clips = read_clips(runs)
        others = None if reference is None else read_clips(reference)
        names = embedder or _EMBEDDERS[:1]
        where = str(ModelChoice(device=device).settle()[0])
        chosen = [load_embedder(name, local_files_only=offline, device=where) for name in names]
        with _progress() as counted:
            found = compute(
                clips, others, embedders=chosen, cache=cache, n_resamples=resamples, seed=seed, progress=counted
            )
        if partial is not None:
            found.table.to_csv(partial, index=False)
    _show(found)
    if out is not None:
        say(f"\nWritten to {out}")
    return {"metrics": rows(found.table), "notes": list(found.notes), "out": out}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Provide a function that shows how many clips are embedded, on stderr."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=complaints, transient=True, disable=talk().quiet or not complaints.is_terminal,
    )  # fmt: skip
    tasks: dict[str, Any] = {}

    def counted(name: str, done: int, clips: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(f"Embedding with {escape(printable(name))}", total=clips)
        bar.update(tasks[name], completed=done)

    with bar:
        yield counted


def _is_table(path: Path) -> bool:
    """Whether a file starts like a file of this command."""
    begin = b"metric,embedder,value,"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(begin)) == begin


def _show(found: Evaluation) -> None:
    listing = found.listing
    if len(listing):
        table = Table(*(Column(escape(name), no_wrap=True) for name in listing.columns), box=box.SIMPLE_HEAD)
        for cells in listing.itertuples(index=False):
            table.add_row(*(escape(printable(cell)) for cell in cells))
        show(table)
    for line in found.lines:
        say(line)
