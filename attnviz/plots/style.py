"""Axes in seconds and Hz, padding, and text as any prompt may hold it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from attnviz.audio.grid import SpectrogramGrid

HZ_TICKS = (125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)

_WIDE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Micro Hei",
    "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Emoji",
    "Segoe UI Symbol", "Symbola",
)  # fmt: skip
"""Fonts that cover scripts and signs which matplotlib's own font lacks; used where installed."""


def mel_position(grid: SpectrogramGrid, hz: float | np.ndarray) -> np.ndarray:
    """Say how high up the mel axis a frequency stands: 0 at ``fmin``, 1 at ``fmax``."""
    rows = 4096
    at = np.concatenate([[grid.fmin], grid.freq(rows), [grid.fmax]])
    share = np.concatenate([[0.0], (np.arange(rows) + 0.5) / rows, [1.0]])
    return np.interp(hz, at, share)


def extent(grid: SpectrogramGrid) -> tuple[float, float, float, float]:
    """Edges of an image over the whole grid: seconds across, shares of the mel axis upwards."""
    return (0.0, grid.seconds, 0.0, 1.0)


def label_axes(ax: Axes, grid: SpectrogramGrid, *, height: float, fontsize: float) -> None:
    """Give an axes over `extent` ticks in seconds and in Hz.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    grid : SpectrogramGrid
    height : float
        Height of the axes in inches: of the ticks in Hz those are kept that have room for their labels.
    fontsize : float
        Of the labels, in points.
    """
    ax.set_xlim(0.0, grid.seconds)
    ax.set_ylim(0.0, 1.0)
    ax.grid(visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    room = 1.25 * fontsize / 72 / height
    kept: list[tuple[float, int]] = []
    for hz in sorted((hz for hz in HZ_TICKS if grid.fmin <= hz <= grid.fmax), reverse=True):
        at = float(mel_position(grid, hz))
        if not kept or kept[-1][0] - at >= room:
            kept.append((at, hz))
    ax.set_yticks([at for at, _ in kept], [_hertz(hz) for _, hz in kept])
    ax.tick_params(labelsize=fontsize, length=2.5, pad=2)


def hatch_padding(ax: Axes, grid: SpectrogramGrid, padding: Iterable[bool]) -> None:
    """Grey and hatch the columns that lie beyond the audio.

    Parameters
    ----------
    padding : iterable of bool
        One entry a column of the map that is drawn, equal shares of the grid's width.
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


def text_style() -> dict[str, object]:
    """Keywords for text that comes from a prompt: ``$`` starts no mathematics, fonts fill in for one another."""
    return {"fontfamily": _families(), "parse_math": False, "usetex": False}


def readable(text: str, longest: int | None = None) -> str:
    """Make a prompt's text drawable: one line, and what no installed font has by its name (``[dog]``).

    Parameters
    ----------
    text : str
    longest : int, optional
        Shorten to so many characters.
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
    """Code points that one of the fonts has a glyph for."""
    found: set[int] = set()
    for family in families:
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        except ValueError:  # not installed: matplotlib passes over it when drawing, too
            continue
        found.update(font_manager.get_font(path).get_charmap())
    return frozenset(found)


def _is_skin_tone(character: str) -> bool:
    return 0x1F3FB <= ord(character) <= 0x1F3FF


def _hertz(hz: int) -> str:
    return f"{hz // 1000}k" if hz >= 1000 else str(hz)
