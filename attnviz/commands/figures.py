"""``attnviz figures``: the figures of a paper, from saved runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnviz.commands.options import Readout
from attnviz.io.ownership import Kind
from attnviz.terminal import DoneInPartError, announce, check_out, command, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attnviz.diagnosis import Diagnosis
    from attnviz.plots.paper import FigureSet, Style
    from attnviz.report.saved_run import SavedRun

_COMPARISON = "comparison"
FIGURES = Kind("figures")


@command
def figures(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared, too.", metavar="RUN...")],
    style: Annotated[str, typer.Option(help="Sizes and type of the figures: paper.")] = "paper",
    word: Annotated[
        list[str] | None, typer.Option("--word", "-w", help="A phrase to draw; may be given several times.")
    ] = None,
    readout: Readout = "mean",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write; of one run RUN/figures where left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing figures.")] = False,
) -> dict[str, Any]:
    """Draw the figures of a paper from saved runs, as PDF and PNG; no model is loaded.

    Ends with status 3 where a figure was left out, and says which, and why.
    """
    if out is None and len(runs) == 1:
        check_out(runs[0] / "figures", overwrite=overwrite)
    elif out is not None:
        check_out(out, overwrite=overwrite)
    announce("Reading the runs" if len(runs) > 1 else "Reading the run")
    from attnviz.errors import AttnVizError, OutputError
    from attnviz.io.storage import check_free, whole_folder
    from attnviz.plots.paper import STYLES, FigureSet
    from attnviz.plots.style import without_tex
    from attnviz.report.saved_run import read_saved_run

    if style not in STYLES:
        raise AttnVizError(f"--style {style} is unknown; there is {', '.join(STYLES)}.")
    if out is None and len(runs) > 1:
        raise OutputError(f"{len(runs)} runs need one folder for their figures: say which with --out.")
    target = runs[0] / "figures" if out is None else out
    if out is not None:
        check_free(target, overwrite=overwrite, kind=FIGURES)
    sets, left_out = {}, {}
    for name, folder in _named(runs).items():
        run = read_saved_run(folder)
        spans = tuple(run.maps.tokens[0].phrase_span(phrase) for phrase in word or ())
        for span in spans or [one.span for one in run.maps.occurrences(0)[:1]]:
            run.maps.heatmap(span, readout=readout)  # or an error, before anything is drawn
        prefix = f"{name}: " if len(runs) > 1 else ""
        found, reason = _diagnosis(run, readout)
        if found is None:
            left_out[f"{prefix}diagnosis"] = reason
        sets[name] = FigureSet(run, STYLES[style], spans, readout, found)
    drawn: list[str] = []
    with whole_folder(target, overwrite=overwrite, kind=FIGURES) as partial, without_tex():
        for name, one in sets.items():
            place = partial if len(sets) == 1 else partial / name
            place.mkdir(exist_ok=True)
            _draw_all(one, place, "" if len(sets) == 1 else f"{name}: ", drawn, left_out)
        if len(sets) > 1:
            _compare(sets, list(word or ()), partial, STYLES[style], drawn, left_out)
    say(f"{', '.join(drawn)}\nWritten to {target}")
    result = {"out": target, "figures": drawn, "left_out": left_out}
    if left_out:
        reasons = "\n".join(f"no figure {name}: {reason}" for name, reason in left_out.items())
        raise DoneInPartError(
            f"{len(drawn)} figures were drawn, {len(left_out)} were left out.\n{reasons}", result
        )
    return result


def _named(runs: list[Path]) -> dict[str, Path]:
    """Name run folders: by their last part, where that tells them apart."""
    from attnviz.errors import OutputError

    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.resolve().parent.name}-{run.resolve().name}" for run in runs]
    if len(set(names)) < len(names) or f"{_COMPARISON}.pdf" in names:
        raise OutputError(
            f"The runs go by the names {', '.join(names)}, which do not tell them apart. Was one given twice? "
            "Rename others."
        )
    return dict(zip(names, runs, strict=True))


def _diagnosis(run: SavedRun, readout: str) -> tuple[Diagnosis | None, str]:
    """Look for signs of failure; None and the reason where nothing can be looked for."""
    from attnviz.diagnosis import diagnose
    from attnviz.errors import MapsError

    try:
        return diagnose(run.maps, readout=readout), ""
    except MapsError as error:
        return None, str(error)


def _draw_all(figures: FigureSet, folder: Path, prefix: str, drawn: list[str], left_out: dict[str, str]) -> None:
    """Write every figure the run has the material of, and note why it has not that of others."""
    from attnviz.errors import EventsError, MapsError, PromptError

    before = len(drawn)
    for name, draw in figures.drawers().items():
        try:
            figure = draw()
        except (EventsError, MapsError, PromptError) as error:
            left_out[f"{prefix}{name}"] = str(error)
            continue
        _save(figure, folder / name, figures.style)
        drawn.append(f"{prefix}{name}")
    if len(drawn) == before:
        reasons = " ".join(dict.fromkeys(left_out.values()))
        raise MapsError(f"{figures.run.folder} has the material of no figure. {reasons}")


def _compare(
    sets: dict[str, FigureSet],
    phrases: list[str],
    folder: Path,
    style: Style,
    drawn: list[str],
    left_out: dict[str, str],
) -> None:
    from attnviz.errors import MapsError
    from attnviz.plots import comparison_panels

    maps = {name: one.maps for name, one in sets.items()}
    readout = next(iter(sets.values())).readout
    try:
        figure = comparison_panels(maps, phrases, readout=readout, width=style.two)
    except MapsError as error:
        left_out[_COMPARISON] = str(error)
        return
    _save(figure, folder / _COMPARISON, style)
    drawn.append(_COMPARISON)


def _save(figure: Figure, path: Path, style: Style) -> None:
    import matplotlib as mpl

    # Type 42: letters stay text, to be searched and edited; publishers refuse matplotlib's own Type 3.
    with mpl.rc_context({"pdf.fonttype": 42, "pdf.use14corefonts": False}):
        figure.savefig(path.with_name(f"{path.name}.pdf"), metadata={"CreationDate": None})
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=style.dpi)
