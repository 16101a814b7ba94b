"""Common style of all figures: colours, axes in seconds and Hz, padding, and text of arbitrary prompts."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError

Scale = Literal["shared", "own"]
"""Common scale, or a separate scale for each."""

LINE_COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#b5367a", "#8a6d00", "#3f3f3f")
LINE_DASHES = ("-", "--", "-.", ":")
"""Line styles that differ in dash as well as in colour (Okabe and Ito), for greyscale prints."""

ATTENTION = "magma_r"
"""Colour map of attention in all figures and in the report."""

MAP_COLOUR, CONTROL_COLOUR = "#b5367a", "#5f7183"
"""Colours of the map and of its controls, distinguishable in grey and by colour-blind readers."""

EVENT_COLOUR = "#c3d3e0"
"""Colour of the bars of events, which are drawn below everything else."""

FONTSIZE = 8.0
"""Size of tick labels in points; axis labels and titles are one point larger."""

_SMALLEST, _LINE_SPACING = 5.0, 1.12

HZ_TICKS = (125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)

_WIDE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Micro Hei",
    "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Emoji",
    "Segoe UI Symbol", "Symbola",
)  # fmt: skip
"""Fonts for scripts and symbols that matplotlib's own font lacks; used if installed."""


def check_scale(scale: str) -> None:
    """Check that a scale is known.

    Raises
    ------
    MapsError
        If it is unknown; the message lists the scales.
    """
    if scale not in ("shared", "own"):
        raise MapsError(f"scale={scale!r} is unknown; it must be 'shared' or 'own'.")


def own_axes(width: float, height: float) -> Axes:
    """Create axes in a new figure, with sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def named_colours(cmap: str) -> Colormap:
    """Return a colour map of matplotlib by name.

    Raises
    ------
    MapsError
        If matplotlib has no colour map of that name.
    """
    if cmap not in colormaps:
        raise MapsError(f"matplotlib has no colour map {cmap[:60]!r}; for example 'magma_r' or 'viridis_r'.")
    return colormaps[cmap]


def attention_colours(cmap: str, end: float = 0.86) -> Colormap:
    """Return a colour map with grey for undefined cells, without the black end of maps from light to dark.

    Raises
    ------
    MapsError
        If matplotlib has no colour map of that name.
    """
    colours = named_colours(cmap)(np.linspace(0, end, 256))
    return LinearSegmentedColormap.from_list(f"{cmap}_attention", colours).with_extremes(bad="0.8")


def height_of(ax: Axes) -> float:
    """Return the height of axes in inches, before the layout of the figure."""
    return float(ax.get_window_extent().height / ax.figure.dpi)


def width_of(ax: Axes) -> float:
    """Return the width of axes in inches, before the layout of the figure."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def wrapped(text: str, inches: float, size: float = FONTSIZE + 1) -> str:
    """Wrap a label of a given font size to lines that fit the length of its axis."""
    return "\n".join(textwrap.wrap(text, max(8, int(inches * 72 / (0.58 * size))), break_long_words=False))


def name_ticks(axis: Axis, names: Iterable[str], room: float, *, first: float = 0.0) -> None:
    """Label the positions of an axis from `first`; if room (inches) is short, in smaller type or every second one.

    The names may be texts from a prompt.
    """
    listed = [readable(name, longest=28) for name in names]
    line = max(room, 0.1) / max(len(listed), 1) * 72 / _LINE_SPACING
    size = min(FONTSIZE, max(line, _SMALLEST))
    every = max(1, int(np.ceil(round(size / line, 6))))
    places = range(0, len(listed), every)
    axis.set_ticks(
        [first + place for place in places], [listed[place] for place in places], fontsize=size, **text_style()
    )
    axis.set_tick_params(length=0, pad=3)


def plain(ax: Axes, *sides: str) -> None:
    """Hide the top and right spines of axes, and optionally others."""
    for side in ("top", "right", *sides):
        ax.spines[side].set_visible(False)
    ax.grid(visible=False)


def label_time(ax: Axes, grid: SpectrogramGrid) -> None:
    """Label the horizontal axis in seconds, over the whole grid."""
    ax.set_xlim(0.0, grid.seconds)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    ax.set_xlabel("time (s)", fontsize=FONTSIZE + 1)
    ax.tick_params(axis="x", labelsize=FONTSIZE, length=2.5, pad=2)


def mel_position(grid: SpectrogramGrid, hz: float | np.ndarray) -> np.ndarray:
    """Return the position of a frequency on the mel axis: 0 at ``fmin``, 1 at ``fmax``."""
    rows = 4096
    at = np.concatenate([[grid.fmin], grid.freq(rows), [grid.fmax]])
    share = np.concatenate([[0.0], (np.arange(rows) + 0.5) / rows, [1.0]])
    return np.interp(hz, at, share)


def extent(grid: SpectrogramGrid | CellGrid) -> tuple[float, float, float, float]:
    """Return the extent of an image over the whole grid: seconds, and fractions of the mel axis."""
    return (0.0, grid.seconds, grid.bottom if isinstance(grid, CellGrid) else 0.0, 1.0)


def label_axes(ax: Axes, grid: SpectrogramGrid, *, height: float, fontsize: float) -> None:
    """Set ticks in seconds, and in Hz if the grid has a frequency axis, on axes over `extent`.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    grid : SpectrogramGrid
    height : float
        Height of the axes in inches. Ticks in Hz without room for their labels are omitted, but never the lowest,
        which is the same in all figures.
    fontsize : float
        Font size of the labels in points.
    """
    ax.set_xlim(0.0, grid.seconds)
    ax.set_ylim(0.0, 1.0)
    ax.grid(visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    room = 1.25 * fontsize / 72 / height
    ticks = [(float(mel_position(grid, hz)), hz) for hz in hertz_ticks(grid)] if grid.has_freq else []
    kept = ticks[:1]
    last = np.inf
    for at, hz in reversed(ticks[1:]):
        if last - at >= room and at - kept[0][0] >= room:
            kept.append((at, hz))
            last = at
    ax.set_yticks([at for at, _ in kept], [hertz(hz) for _, hz in kept])
    ax.tick_params(labelsize=fontsize, length=2.5, pad=2)


def hertz_ticks(grid: SpectrogramGrid) -> list[int]:
    """Return the frequencies in Hz to label on a grid, ascending."""
    return [hz for hz in HZ_TICKS if grid.fmin <= hz <= grid.fmax]


def hatch_padding(ax: Axes, grid: SpectrogramGrid | CellGrid, padding: Iterable[bool]) -> None:
    """Hatch the columns beyond the audio in grey.

    Parameters
    ----------
    padding : iterable of bool
        One entry per column of the map, which divide the width of the grid into equal parts.
    """
    flags = np.asarray(list(padding), dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int))).reshape(-1, 2)
    for first, last in edges * (grid.seconds / max(flags.size, 1)):
        ax.add_patch(
            Rectangle(
                (first, 0), last - first, 1, facecolor="0.85", edgecolor="0.55", hatch="////", linewidth=0,
                zorder=5,
            )
        )  # fmt: skip


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    return frozenset(font.name for font in font_manager.fontManager.ttflist)


def without_tex() -> AbstractContextManager[None]:
    """Use matplotlib's own text rendering when drawing and writing figures, regardless of ``text.usetex``.

    Output of attnviz itself must not fail after all work is done because LaTeX is missing. Figures returned by the
    plot functions follow the settings of the user.
    """
    return mpl.rc_context({"text.usetex": False})


def text_style() -> dict[str, Any]:
    """Return keyword arguments for text from prompts: no mathematics with ``$``, and font fallback."""
    return {"fontfamily": _families(), "parse_math": False, "usetex": False}


def readable(text: str, longest: int | None = None) -> str:
    """Convert text to a single line in which characters without a font are replaced by their names (``[dog]``).

    Parameters
    ----------
    text : str
        Text to convert.
    longest : int, optional
        Maximum number of characters; longer text is cut and ends with an ellipsis.
    """
    covered = _covered(tuple(_families()))
    parts: list[str] = []
    for character in " ".join(text.split()):
        category = unicodedata.category(character)
        if category in ("Cc", "Cf", "Cs") or 0xFE00 <= ord(character) <= 0xFE0F or _is_skin_tone(character):
            continue
        if character.isspace() or ord(character) in covered:
            parts.append(character)
        elif category in ("So", "Sk"):
            parts.append(f"[{unicodedata.name(character, 'symbol').lower()}]")
        else:
            parts.append(f"[U+{ord(character):04X}]")
    line = "".join(parts)
    return line if longest is None or len(line) <= longest else line[: longest - 1] + "…"


def _families() -> list[str]:
    own = [name for name in mpl.rcParams["font.family"] if isinstance(name, str)]
    return [*own, "DejaVu Sans", *(name for name in _WIDE_FONTS if name in _installed())]


@lru_cache(maxsize=8)
def _covered(families: tuple[str, ...]) -> frozenset[int]:
    """Return the code points for which one of the fonts has a glyph."""
    found: set[int] = set()
    for family in families:
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        except ValueError:  # not installed: matplotlib skips it as well
            continue
        found.update(font_manager.get_font(path).get_charmap())
    return frozenset(found)


def _is_skin_tone(character: str) -> bool:
    return 0x1F3FB <= ord(character) <= 0x1F3FF


def hertz(hz: int) -> str:
    """Format a frequency briefly: 500, 2k."""
    return f"{hz // 1000}k" if hz >= 1000 else str(hz)
