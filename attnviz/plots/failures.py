"""The signs of failure that a diagnosis looked at."""

from __future__ import annotations

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
    """Draw what a diagnosis looked at: a row a sign, faults to the right of the line.

    Each row has a scale of its own, from the best value (left) over its threshold (middle) to the worst (right);
    the value and its threshold stand beside it. What could not be judged is listed below.

    Parameters
    ----------
    diagnosis : Diagnosis
        What `attnviz.diagnose` gave.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a figure of its own (``ax.figure``).

    Returns
    -------
    matplotlib.axes.Axes
        Of its ``lines``, those labelled with the name of a sign are the marks; its ``texts`` are the numbers
        beside them, from top to bottom.

    Raises
    ------
    MapsError
        Nothing could be judged; the message says why.

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
        readable(f"{finding.value:.3g}  (fault {limit.sign} {limit.value:g}){detail}", longest=44),
        (1.02, row), xycoords=("axes fraction", "data"), annotation_clip=False, va="center", ha="left",
        fontsize=FONTSIZE - 0.5, color=MAP_COLOUR if finding.found else "0.25", **text_style(),
    )  # fmt: skip
