"""Plot the signs of failure of a diagnosis."""

from __future__ import annotations

import re

from matplotlib.axes import Axes

from attnviz.arguments import public
from attnviz.diagnosis import Diagnosis, Finding
from attnviz.errors import MapsError
from attnviz.plots.style import (
    CONTROL_COLOUR,
    FONTSIZE,
    MAP_COLOUR,
    height_of,
    name_ticks,
    own_axes,
    plain,
    readable,
    text_style,
    wrapped,
)


@public
def failures(diagnosis: Diagnosis, *, ax: Axes | None = None) -> Axes:
    """Draw the signs of a diagnosis, one per row, with faults to the right of the line.

    Each row has its own scale, from the best value (left) over the threshold (middle) to the worst (right), and
    shows the value and the threshold as numbers. Signs that could not be judged are listed below.

    Parameters
    ----------
    diagnosis : Diagnosis
        Result of `attnviz.diagnose`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        ``lines`` labelled with the name of a sign are the marks; ``texts`` are the numbers, from top to bottom.

    Raises
    ------
    MapsError
        If no sign could be judged. The message gives the reasons.

    Examples
    --------
    >>> import attnviz
    >>> from attnviz.testing import example_maps
    >>> ax = failures(attnviz.diagnose(example_maps(both=True)))
    >>> len(ax.texts), ax.get_title(loc="left")
    (8, 'no fault found')
    """
    judged = [one for one in diagnosis.findings if not one.unjudged]
    if not judged:
        reasons = sorted({one.unjudged for one in diagnosis.findings})
        raise MapsError(f"No sign could be judged: {'; '.join(reasons)}.")
    ax = own_axes(6.6, 1.5 + 0.3 * len(judged)) if ax is None else ax
    ax.axvspan(0.0, 1.08, facecolor=MAP_COLOUR, alpha=0.12, linewidth=0, zorder=0)
    ax.axvline(0.0, color="0.35", linewidth=1.0, zorder=2)
    for row, finding in enumerate(judged):
        ax.axhline(row, color="0.85", linewidth=0.7, zorder=1)
        ax.plot(
            [finding.threshold.position(finding.value)], [row], marker="D" if finding.found else "o",
            markersize=6.5, color=MAP_COLOUR if finding.found else CONTROL_COLOUR, markeredgecolor="white",
            zorder=3, label=finding.name,
        )  # fmt: skip
        _note(ax, row, finding)
    name_ticks(ax.yaxis, [one.name for one in judged], height_of(ax))
    ax.set(xlim=(-1.08, 1.08), ylim=(len(judged) - 0.5, -0.5))
    ax.set_xticks([-1, 0, 1], ["best", "threshold", "worst"], fontsize=FONTSIZE)
    plain(ax, "left")
    unjudged = [one.name for one in diagnosis.findings if one.unjudged]
    if unjudged:
        text = wrapped(f"not judged: {', '.join(unjudged)}", 5.0, FONTSIZE)
        ax.set_xlabel(text, fontsize=FONTSIZE, loc="left", color="0.3")
    found = len(diagnosis.found)
    title = "no fault found" if not found else f"{found} fault{'s' * (found > 1)} found (right of the line)"
    ax.set_title(title, fontsize=FONTSIZE + 1, loc="left", pad=4)
    return ax


def _note(ax: Axes, row: int, finding: Finding) -> None:
    limit = finding.threshold
    detail = f"  {finding.detail}" if finding.detail and finding.found else ""
    ax.annotate(
        readable(f"{_measured(finding)}  (fault {limit.sign} {limit.value:g}){detail}", longest=44),
        (1.02, row), xycoords=("axes fraction", "data"), annotation_clip=False, va="center", ha="left",
        fontsize=FONTSIZE - 0.5, color=MAP_COLOUR if finding.found else "0.25", **text_style(),
    )  # fmt: skip


def _measured(finding: Finding) -> str:
    """Return the value of a finding with its unit, without an exponent."""
    value, unit = finding.value, re.search(r"\(([a-zA-Z]+)\)$", finding.threshold.quantity)
    number = "< 0.001" if 0 < value < 0.0005 else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit.group(1)}" if unit else number
