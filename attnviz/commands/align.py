"""``attnviz align``: a run's maps scored against sound events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from attnviz.commands.options import Readout
from attnviz.terminal import console, printable, reported, say, warnings_shown

if TYPE_CHECKING:
    import pandas as pd

    from attnviz.alignment import Alignment

_FILE = "alignment.csv"


def align(
    run: Annotated[Path, typer.Argument(help="Run folder, as generate and explain write it.")],
    events: Annotated[Path, typer.Option("--events", "-e", help="Sound events of the run's clip, in a file.")],
    clip: Annotated[str | None, typer.Option(help="Which clip of the file; needed where it has several.")] = None,
    readout: Readout = "mean",
    overwrite: Annotated[bool, typer.Option("--overwrite", help=f"Replace an existing {_FILE}.")] = False,
) -> None:
    """Score whether the maps of a run's words fall where their sounds are, beside controls."""
    with reported(), warnings_shown():
        from attnviz.alignment import align as score
        from attnviz.events import read_events
        from attnviz.io.storage import whole_or_nothing
        from attnviz.maps import AttentionMaps

        # The place is looked at before the maps are read, and nothing is left there if they cannot be scored.
        with whole_or_nothing(run / _FILE, overwrite=overwrite, replaceable=_is_alignment) as partial:
            table = read_events(events, clip=clip)
            _check_one_clip(table, events)
            result = score(AttentionMaps.load(run / "maps.zarr"), table, readout=readout)
            result.table.to_csv(partial, index=False)
        _show(result)
        say(f"\nWritten to {run / _FILE}")


def _check_one_clip(table: pd.DataFrame, path: Path) -> None:
    from attnviz.errors import EventsError

    clips = list(dict.fromkeys(table["clip"]))
    if len(clips) > 1:
        raise EventsError(
            f"{path} has the events of {len(clips)} clips, {clips[:5]}; a run is of one. Say which with --clip."
        )


def _is_alignment(path: Path) -> bool:
    """Say whether a path is a file that begins as this command begins one."""
    begin = b"phrase,clip,image,label,"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(begin)) == begin


def _show(result: Alignment) -> None:
    from attnviz.alignment import report

    phrases = result.table[result.table["method"] == "map"]
    listed = Table("phrase", "ROC-AUC", "Pearson", "onset error (s)", "", title_justify="left")
    for label, auc, correlation, error, reason in zip(
        *(phrases[name] for name in ("label", "roc_auc", "pearson", "onset_error", "undefined")), strict=True
    ):
        scores = ("", "", "") if reason else (f"{auc:.3f}", f"{correlation:.3f}", f"{error:+.2f}")
        listed.add_row(escape(printable(label)), *scores, reason)
    if len(phrases):
        console.print(listed)
    for line in report.opening(result):
        say(line)
    if result.counts["scored"]:
        rows = report.score_rows(result.pooled)
        pooled = Table("score", *map(escape, rows.columns))
        for name, cells in rows.iterrows():
            pooled.add_row(str(name), *cells)
        console.print(pooled)
        for line in report.verdicts(result):
            say(line)
