"""Start and end of the commands that write run folders."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnviz.cli.terminal import announce, check_out, quieten_libraries, say
from attnviz.errors import AudioError, EventsError
from attnviz.io.choices import (
    check_axes,
    check_exists,
    check_given,
    check_model,
    check_precision,
    check_seconds,
)

if TYPE_CHECKING:
    from attnviz.cli.jobs import Written


def begun(
    out: Path,
    *,
    overwrite: bool,
    precision: str,
    model: str | None = None,
    keep: Collection[str] = (),
    prompts: Collection[str] = (),
    duration: float | None = None,
    clip: Path | None = None,
    events: Path | None = None,
) -> None:
    """Check what needs no library (paths and names), and announce loading, before slow imports."""
    check_out(out, overwrite=overwrite)
    for prompt in prompts:
        check_given(prompt)
    check_seconds(duration)
    if clip is not None:
        check_exists(clip, "audio file", AudioError)
    if events is not None:
        check_exists(events, "file of events", EventsError)
    if model is not None:
        check_model(model)
    check_precision(precision)
    check_axes(keep)
    announce("Loading PyTorch and the model")
    quieten_libraries()


def written(run: Written) -> dict[str, Any]:
    """Print the content of a run, and return it for JSON."""
    from attnviz.audio.levels import WINDOW_SECONDS

    maps = run.maps
    say(repr(maps))
    levels = ", ".join(f"{file} {level:.1f} dBFS" for file, level in run.levels.items())
    say(f"\nLevel in the loudest {WINDOW_SECONDS:g} s: {levels}")
    say(f"Written to {run.folder}: {', '.join(run.files)}")
    return {
        "run": run.folder,
        "files": run.files,
        "prompts": maps.prompts,
        "words": maps.words,
        "layers": maps.layers,
        "levels_dbfs": run.levels,
        "complete": maps.complete,
        "provenance": maps.provenance,
    }
