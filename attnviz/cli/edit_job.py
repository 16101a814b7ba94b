"""Make an edit for the command line, and write a run folder with the edit and its source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attnviz.audio import write_wav
from attnviz.cli.edit_requests import EditRequest
from attnviz.cli.jobs import ModelChoice, RunPlace, Written
from attnviz.plots.editing import edit_comparison


def edit_to_run(
    request: EditRequest, *, model: ModelChoice, place: RunPlace, warned: Sequence[str] = ()
) -> Written:
    """Make an edit and write a run folder.

    Requests are checked as far as possible before a model is loaded.

    Parameters
    ----------
    request, model
        The edit and the checkpoint.
    place : RunPlace
        Run folder to write. It has the files of a generation, for the edit, and ``source.wav`` (the source),
        ``source.zarr`` (its maps, if it was generated) and ``edit.png`` (comparison).
    warned : sequence of str
        Warnings so far, which are read when the run is written.

    Raises
    ------
    AttnVizError
        If the request, checkpoint or output folder is invalid. Nothing is written then.
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
        figure = edit_comparison(made.before[1], made.after[1], made.maps.grid, words=made.words, **made.region)
        figure.savefig(folder / "edit.png", dpi=150)

    return place.write(
        *made.after,
        made.maps,
        request.record,
        model=model,
        warned=warned,
        source=made.before[0],
        beside=write_source,
    )
