"""``attnviz align``: score a run's maps against sound events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnviz.cli.commands.options import Readout
from attnviz.cli.commands.scores import show_scores
from attnviz.cli.terminal import announce, check_out, command, rows, say
from attnviz.errors import AudioError, EventsError
from attnviz.io.choices import check_exists, check_run

if TYPE_CHECKING:
    import pandas as pd

    from attnviz.listener import Hearing

_FILE = "alignment.csv"
_EVENTS = "events.tsv"


@command
def align(
    run: Annotated[Path, typer.Argument(help="Run folder of generate, explain or edit.")],
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            "-e",
            help=f"File of the clip's sound events, in any supported format; default: {_EVENTS} of the run.",
        ),
    ] = None,
    listen: Annotated[
        bool,
        typer.Option("--listen", help="Detect the events in the run's audio with the bundled listener."),
    ] = False,
    clip: Annotated[str | None, typer.Option(help="Clip of the events file; required if it has several.")] = None,
    readout: Readout = "mean",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help=f"Replace {_FILE}, and {_EVENTS} if it differs.")
    ] = False,
) -> dict[str, Any]:
    """Score the maps of a run against its sound events.

    Each phrase is scored beside controls. A label is a phrase of the prompt, or a class that the prompt names
    ("Dog bark" for "a dog barks"). The events are saved in the run folder, for figures and report.
    """
    check_exists(run, "the run folder")
    if not (run / "maps.zarr").exists():
        check_run(run)  # before anything is said of its events
    if listen and (events is not None or clip is not None):
        raise EventsError(
            f"--listen detects the events, but --{'clip' if events is None else 'events'} refers to a file of "
            "events: use one of the two."
        )
    if listen:
        check_exists(run / "audio.wav", "audio file", AudioError)
    elif events is not None:
        check_exists(events, "file of events", EventsError)
    elif not (run / _EVENTS).exists():
        raise EventsError(
            f"{run} has no {_EVENTS}. Give a file with --events, or use --listen to detect the events in the "
            "run's audio."
        )
    check_out(run / _FILE, overwrite=overwrite)
    announce("Reading maps and events")
    from attnviz.alignment import align as score
    from attnviz.events import events_of, is_tsv, write_tsv
    from attnviz.io.storage import whole_or_nothing
    from attnviz.maps import AttentionMaps

    # Check the output paths before reading the maps; write nothing if the maps cannot be scored.
    with whole_or_nothing(run / _FILE, overwrite=overwrite, replaceable=_is_alignment) as partial:
        given = _heard(run) if listen else _read(run / _EVENTS if events is None else events, clip)
        maps = AttentionMaps.load(run / "maps.zarr")
        table = events_of(given, maps.prompts[0])
        result = score(maps, table, readout=readout)
        result.table.to_csv(partial, index=False)
        if not _is_kept(run, table):
            with whole_or_nothing(run / _EVENTS, overwrite=overwrite, replaceable=is_tsv) as kept:
                write_tsv(table, kept)
    show_scores(table, result)
    say(f"\nWritten to {run}: {_FILE}, {_EVENTS}")
    return {
        "run": run,
        "files": [_FILE, _EVENTS],
        "readout": result.readout,
        "events": rows(table),
        "phrases": rows(result.table),
        "pooled": rows(result.pooled.scores),
        "differences": rows(result.pooled.differences),
    }


def _read(path: Path, clip: str | None) -> pd.DataFrame:
    """Read the events of one clip from a file."""
    from attnviz.events import read_events
    from attnviz.events.spans import quoted

    table = read_events(path, clip=clip)
    clips = list(dict.fromkeys(table["clip"]))
    if len(clips) > 1:
        raise EventsError(
            f"{path} has events of {len(clips)} clips, {quoted(clips)}, but a run has one clip. Choose one with "
            "--clip."
        )
    return table


def _heard(run: Path) -> Hearing:
    """Detect events in the run's audio."""
    from attnviz.listener.listening import listen

    hearing = listen(run / "audio.wav")
    say(hearing.quality_line)
    return hearing


def _is_kept(run: Path, table: pd.DataFrame) -> bool:
    """Whether the run folder already has exactly these events."""
    from attnviz.events import read_tsv

    try:
        kept = read_tsv(run / _EVENTS)
    except EventsError:
        return False
    return kept.to_csv() == table.to_csv()


def _is_alignment(path: Path) -> bool:
    """Whether a file starts like a file of this command."""
    begin = b"phrase,clip,image,label,"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(begin)) == begin
