"""What the commands that write run folders have in common: how they begin, and what they say of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnviz.terminal import announce, check_out, quieten_libraries, say

if TYPE_CHECKING:
    from attnviz.jobs import Written


def begun(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken, and say that the model is loaded, before what takes seconds to import."""
    check_out(out, overwrite=overwrite)
    announce("Loading PyTorch and the model")
    quieten_libraries()


def written(run: Written) -> dict[str, Any]:
    """Say what a run holds, and return it for JSON."""
    maps = run.maps
    say(repr(maps))
    say(f"\nWritten to {run.folder}: {', '.join(run.files)}")
    return {
        "run": run.folder,
        "files": run.files,
        "prompts": maps.prompts,
        "words": maps.words,
        "layers": maps.layers,
        "complete": maps.complete,
        "provenance": maps.provenance,
    }
