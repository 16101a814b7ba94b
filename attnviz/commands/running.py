"""Start and end of the commands that write run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnviz.terminal import announce, check_out, quieten_libraries, say

if TYPE_CHECKING:
    from attnviz.jobs import Written


def begun(out: Path, *, overwrite: bool) -> None:
    """Check the output path and announce loading, before slow imports."""
    check_out(out, overwrite=overwrite)
    announce("Loading PyTorch and the model")
    quieten_libraries()


def written(run: Written) -> dict[str, Any]:
    """Print the content of a run, and return it for JSON."""
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
