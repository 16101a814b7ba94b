"""``attnviz listen``: detect the sound events of a clip."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from attnviz.cli.terminal import announce, check_out, command, printable, rows, say, show
from attnviz.errors import AudioError, CheckpointError, OutputError
from attnviz.io.choices import check_exists

if TYPE_CHECKING:
    from attnviz.listener.hearing import Hearing

_STRONGEST = 3  # classes shown on the terminal


@command
def listen(
    clip: Annotated[Path, typer.Argument(help="Audio file, such as WAV, FLAC, OGG or MP3.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="TSV file for the events.")] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Folder of a trained listener; default: the bundled one."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing TSV file of events.")
    ] = False,
) -> dict[str, Any]:
    """Detect which of ten classes of sounds are in a clip, and when."""
    if out is not None:
        check_out(out, overwrite=overwrite)
        if not out.expanduser().parent.is_dir():
            raise OutputError(f"Cannot write {out}: there is no folder {out.parent}. Create it first.")
    check_exists(clip, "audio file", AudioError)
    if model is not None:
        check_exists(model, "folder of the listener", CheckpointError)
    announce("Loading PyTorch and the listener")
    from attnviz.events import is_tsv, write_tsv
    from attnviz.io.storage import whole_or_nothing
    from attnviz.listener import listening

    # Check the output path before reading the clip; write nothing if the clip cannot be read.
    place = whole_or_nothing(out, overwrite=overwrite, replaceable=is_tsv) if out is not None else nullcontext()
    with place as partial:
        hearing = listening.listen(clip, model=model)
        if partial is not None:
            write_tsv(hearing.events, partial)
    _show(hearing)
    if out is not None:
        say(f"\nWritten to {out}")
    peaks = {str(name): float(hearing.peaks.sel(sound=name)) for name in hearing.probabilities["sound"].values}
    return {
        "clip": hearing.clip,
        "seconds": hearing.seconds,
        "events": rows(hearing.events),
        "peaks": peaks,
        "quality": hearing.quality,
        "doubt": hearing.doubt,
        "out": out,
    }


def _show(hearing: Hearing) -> None:
    table = Table("sound", "onset (s)", "offset (s)", title=escape(printable(hearing.clip)), title_justify="left")
    for label, onset, offset in zip(*(hearing.events[name] for name in ("label", "onset", "offset")), strict=True):
        table.add_row(escape(label), f"{onset:.2f}", f"{offset:.2f}")
    show(table if len(hearing.events) else _nothing(hearing))
    peaks = hearing.peaks
    named = ", ".join(f"{name} {float(peaks.sel(sound=name)):.2f}" for name in hearing.strongest(_STRONGEST))
    say(f"strongest: {named}")
    if hearing.doubt:
        say(f"doubtful: {hearing.doubt}")
    say(hearing.quality_line)


def _nothing(hearing: Hearing) -> str:
    """Explain why there is no event: silence, or other sounds."""
    from attnviz.audio.levels import INAUDIBLE_DBFS

    loudest = None if hearing.levels is None else float(hearing.levels.max())
    if loudest is not None and loudest < INAUDIBLE_DBFS:
        return f"Nothing that can be heard: {loudest:.1f} dBFS in the loudest 0.4 s."
    return "No sound that the listener knows."
