"""The command line's work on edits: make one, and write a run folder with what was edited beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attnviz.audio import write_wav
from attnviz.editing.requests import EditRequest
from attnviz.jobs import ModelChoice, RunPlace, Written
from attnviz.plots.editing import edit_comparison


def edit_to_run(
    request: EditRequest, *, model: ModelChoice, place: RunPlace, warned: Sequence[str] = ()
) -> Written:
    """Make an edit and write a run folder.

    What can be refused without a model is refused before one is loaded.

    Parameters
    ----------
    request, model
        What is edited, and by which checkpoint.
    place : RunPlace
        Run folder to write: that of a generation, for the edit, and ``source.wav`` (what was edited),
        ``source.zarr`` (its maps, where it was generated beside the edit) and ``edit.png`` (the two, compared).
    warned : sequence of str
        Warnings given so far, read when the run is written.

    Raises
    ------
    AttnVizError
        On a bad request, checkpoint or output folder; nothing is written then.
    """
    request.check()
    model.settle()
    place.check()
    pipe = model.load()
    request = request.settled(pipe.recommended)
    made = request.run(pipe)

    def write_source(folder: Path) -> None:
        write_wav(folder / "source.wav", made.before[0])
        if made.source_maps is not None:
            made.source_maps.save(folder / "source.zarr")
        figure = edit_comparison(made.before[1], made.after[1], made.maps.grid, words=made.words)
        figure.savefig(folder / "edit.png", dpi=150)

    return place.write(*made.after, made.maps, request.record, model=model, warned=warned, beside=write_source)
