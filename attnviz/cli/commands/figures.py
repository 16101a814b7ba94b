"""``attnviz figures``: draw the figures of a paper from saved runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnviz.cli.commands.options import Readout
from attnviz.cli.terminal import DoneInPartError, announce, check_out, command, in_options, say
from attnviz.errors import AttnVizError, OutputError
from attnviz.io.choices import check_run
from attnviz.io.ownership import Kind
from attnviz.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attnviz.diagnosis import Diagnosis
    from attnviz.plots.paper import FigureSet, Style
    from attnviz.report.saved_run import SavedRun

_COMPARISON = "comparison"
FIGURES = Kind("figures")


@command
def figures(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are also compared.", metavar="RUN")],
    style: Annotated[str, typer.Option(help="Sizes and fonts of the figures: paper.")] = "paper",
    word: Annotated[list[str] | None, typer.Option("--word", "-w", help="Phrase to draw, repeatable.")] = None,
    readout: Readout = "mean",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder; default for one run: RUN/figures.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing figures.")] = False,
) -> dict[str, Any]:
    """Draw the figures of a paper from saved runs.

    Figures are PDF and PNG files; no model is loaded. The exit status is 3 if figures were left out; they are
    listed with the reasons.
    """
    for run_folder in runs:
        check_run(run_folder)
    if out is None and len(runs) > 1:
        raise OutputError(f"{len(runs)} runs need one folder for their figures: give it with --out.")
    check_out(runs[0] / "figures" if out is None else out, overwrite=overwrite)
    announce("Reading the runs" if len(runs) > 1 else "Reading the run")
    from attnviz.io.storage import check_free, whole_folder
    from attnviz.plots.paper import STYLES, FigureSet
    from attnviz.plots.style import without_tex
    from attnviz.report.saved_run import read_saved_run

    if style not in STYLES:
        raise AttnVizError(f"--style {style} is unknown; known: {', '.join(STYLES)}.")
    target = runs[0] / "figures" if out is None else out
    if out is not None:
        check_free(target, overwrite=overwrite, kind=FIGURES)
    sets, left_out = {}, {}
    for name, folder in _named(runs).items():
        run = read_saved_run(folder)
        spans = tuple(run.maps.tokens[0].phrase_span(phrase) for phrase in word or ())
        for span in spans or [one.span for one in run.maps.occurrences(0)[:1]]:
            run.maps.heatmap(span, readout=readout)  # raise errors before drawing
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
            f"{counted(len(drawn), 'figure')} drawn, {len(left_out)} left out.\n{reasons}", result
        )
    return result


def _named(runs: list[Path]) -> dict[str, Path]:
    """Name runs by their folder, with the parent folder if names repeat."""
    from attnviz.errors import OutputError

    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.resolve().parent.name}-{run.resolve().name}" for run in runs]
    if len(set(names)) < len(names) or f"{_COMPARISON}.pdf" in names:
        raise OutputError(
            f"The runs have the names {', '.join(names)}, which are not unique or are reserved. Was a run given "
            "twice? Otherwise rename a folder."
        )
    return dict(zip(names, runs, strict=True))


def _diagnosis(run: SavedRun, readout: str) -> tuple[Diagnosis | None, str]:
    """Diagnose maps and audio, as `attnviz diagnose` does; return None and the reason if that is impossible."""
    from attnviz.diagnosis import diagnose
    from attnviz.errors import MapsError

    try:
        return diagnose(run.maps, readout=readout, audio=run.audio), ""
    except MapsError as error:
        return None, in_options(str(error))


def _draw_all(figures: FigureSet, folder: Path, prefix: str, drawn: list[str], left_out: dict[str, str]) -> None:
    """Draw every figure that the run has data for, and record why others are left out."""
    from attnviz.errors import EventsError, MapsError, PromptError

    before = len(drawn)
    for name, draw in figures.drawers().items():
        try:
            figure = draw()
        except (EventsError, MapsError, PromptError) as error:
            left_out[f"{prefix}{name}"] = in_options(str(error))
            continue
        _save(figure, folder / name, figures.style)
        drawn.append(f"{prefix}{name}")
    if len(drawn) == before:
        reasons = " ".join(dict.fromkeys(left_out.values()))
        raise MapsError(f"{figures.run.folder} has no data for any figure. {reasons}")


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
        left_out[_COMPARISON] = in_options(str(error))
        return
    _save(figure, folder / _COMPARISON, style)
    drawn.append(_COMPARISON)


def _save(figure: Figure, path: Path, style: Style) -> None:
    import matplotlib as mpl

    # Type 42 keeps letters as text to search and edit; publishers reject matplotlib's default, Type 3.
    with mpl.rc_context({"pdf.fonttype": 42, "pdf.use14corefonts": False}):
        figure.savefig(path.with_name(f"{path.name}.pdf"), metadata={"CreationDate": None})
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=style.dpi)
