"""Plot one heat map per word over the spectrogram."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, Readout
from attnviz.plots.heat import checked, draw_heat, highest_of, is_signed, normed, scale_bar, see_through
from attnviz.plots.spectrogram import spectrogram as draw_spectrogram
from attnviz.plots.style import ATTENTION, FONTSIZE, label_axes, readable, text_style

_MOST_ACROSS = 100  # panels side by side


@dataclass(frozen=True)
class _Panel:
    title: str
    heat: xr.DataArray
    special: bool

    @property
    def highest(self) -> float:
        return highest_of(self.heat)


@public
def word_maps(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    words: Iterable[str | tuple[int, int]] | None = None,
    special_tokens: bool = False,
    readout: Readout = "mean",
    pool: str = "mean",
    grid: str = "finest",
    scale: Literal["shared", "own"] = "shared",
    spectrogram: bool | np.ndarray | xr.DataArray = True,
    beside: bool = False,
    cmap: str = ATTENTION,
    columns: int | None = None,
    width: float | None = None,
) -> Figure:
    """Draw the heat map of each word over the grey spectrogram of the sound.

    Colour and opacity increase with attention, from none at 0, so constant maps look constant. If a word has
    negative attention, all words are drawn in red above 0 and blue below. Columns beyond the audio are hatched and
    do not affect the colour scale.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    words : iterable of str or (int, int), optional
        Phrases or character spans. By default, every stored word, including repetitions.
    special_tokens : bool
        Also draw the start and end tokens, if stored. Because they often take most of the attention, they do not
        affect the shared scale: higher values have the last colour, and the colour bar ends in an arrow.
    readout, pool, grid
        See `AttentionMaps.heatmap`.
    scale : {"shared", "own"}
        One colour scale for all words, from 0 to their maximum, with a colour bar; or a separate scale for each
        word up to its own maximum, which is given in the title (words with little attention then look as strong as
        others).
    spectrogram : bool or array (bands, frames)
        Spectrogram to draw below the maps: the log-mel spectrogram of the maps, if any (True), none (False), or
        the given array, lowest band first.
    beside : bool
        Draw the spectrogram in its own colours in the first panel, instead of below the maps.
    cmap : str
        Matplotlib colour map with a light lower end, perceptually uniform and suitable for colour-blind readers:
        ``"magma_r"``, ``"viridis_r"``, ``"cividis_r"``.
    columns : int, optional
        Number of panels per row, at most 100. By default, it depends on their number and the width.
    width : float, optional
        Width of the figure in inches, for example for a column of a paper. By default, as wide as needed.

    Returns
    -------
    matplotlib.figure.Figure
        A new figure, to be saved with ``figure.savefig("words.png")``.

    Raises
    ------
    MapsError
        If there is no word to draw, `beside` is set without a spectrogram, the scale is unknown, or the width is
        not at least 2 inches. See also `AttentionMaps.heatmap`.
    PromptError
        If a phrase is not in the prompt, or is repeated and given without its span.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> figure = word_maps(example_maps(), words=["dog barks", "rain"])
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
    ['dog barks', 'rain']
    """
    if scale not in ("shared", "own"):
        raise MapsError(f"scale={scale!r} is unknown; it must be 'shared' or 'own'.")
    how = _How(prompt_index, sample, readout, pool, grid)
    if width is not None and not 2.0 <= width <= 100.0:
        raise MapsError(f"width={width} must be between 2 and 100 inches. Was it given in millimetres or points?")
    panels = _panels(maps, how, words, special_tokens)
    if not panels:
        raise MapsError("There is no word to draw: no word of the prompt was stored in full.")
    beneath = _beneath(maps, how, spectrogram)
    if beside and beneath is None:
        raise MapsError("beside=True needs a spectrogram, but these maps have none; give spectrogram=.")
    number = len(panels) + beside
    across = columns or _columns(number, width)
    if not 1 <= across <= _MOST_ACROSS:
        raise MapsError(f"columns={columns} must be from 1 to {_MOST_ACROSS}.")
    down = math.ceil(number / across)
    panel_width, height = _panel_size(across, width)
    total = across * panel_width + 1.3
    title, lines = _title(maps.prompts[prompt_index], across * panel_width)
    figure = Figure(figsize=(total, down * (height + 0.3) + 0.55 + 0.2 * lines), layout="constrained")
    figure.suptitle(title, fontsize=10, **text_style())
    axes = figure.subplots(down, across, squeeze=False)
    signed = any(is_signed(panel.heat) for panel in panels)
    colours = see_through(cmap, signed=signed)
    norm, over = _norm(panels, scale, signed)
    first = iter(axes.flat)
    if beside and beneath is not None:
        _draw_sound(next(first), beneath, maps)
    for ax, panel in zip(first, panels, strict=False):
        own = norm if scale == "shared" else normed(panel.highest or 1.0, signed=signed)
        draw_heat(ax, panel.heat, maps.grid, None if beside else beneath, colours, own)
        peak = f"   max {panel.highest:.2g}" if scale == "own" else ""
        ax.set_title(
            readable(panel.title, longest=max(8, int(panel_width * 13) - len(peak))) + peak,
            fontsize=9, loc="left", pad=3, style="italic" if panel.special else "normal", **text_style(),
        )  # fmt: skip
    for place, ax in enumerate(axes.flat):
        label_axes(ax, maps.grid, height=height, fontsize=FONTSIZE)
        ax.tick_params(labelbottom=place + across >= number, labelleft=place % across == 0)
        if place // across < down - 1:
            # Above the gap of a shorter last row: the labels extend into the gap and need no extra room.
            ax.xaxis.set_in_layout(False)
        ax.set_visible(place < number)
    figure.supxlabel("time (s)", fontsize=9)
    if maps.grid.has_freq:
        figure.supylabel("frequency (Hz)", fontsize=9)
    scale_bar(
        axes, ScalarMappable(norm, colours),
        "share of the word's own maximum" if scale == "own" else f"{panels[0].heat.attrs['long_name']}",
        over=over, on_sound=beneath is not None and not beside,
        shrink=min(1.0, 4.0 / down) if down > 4 else 1.0, aspect=18 * min(down, 4) / 2, pad=0.012,
    )  # fmt: skip
    return figure


@dataclass(frozen=True)
class _How:
    """Settings that select the map of a phrase."""

    prompt_index: int
    sample: int
    readout: Readout
    pool: str
    grid: str

    def keywords(self) -> dict[str, Any]:
        return {
            "prompt_index": self.prompt_index,
            "sample": self.sample,
            "readout": self.readout,
            "pool": self.pool,
            "grid": self.grid,
        }


def _panels(
    maps: AttentionMaps, how: _How, words: Iterable[str | tuple[int, int]] | None, special_tokens: bool
) -> list[_Panel]:
    chosen: list[tuple[str, str | tuple[int, int]]]
    if words is None:
        chosen = [(word.label, word.span) for word in maps.occurrences(how.prompt_index)]
    else:
        text = maps.prompts[how.prompt_index]
        chosen = [(word if isinstance(word, str) else text[word[0] : word[1]], word) for word in words]
    panels = [_Panel(title, maps.heatmap(word, **how.keywords()), special=False) for title, word in chosen]
    if not special_tokens:
        return panels
    rows = maps.tokens[how.prompt_index].rows
    rows = rows[rows["kind"].isin(["start", "end"]) & rows["position"].isin(maps.positions)]
    several = rows["encoder"].nunique() > 1
    before: list[_Panel] = []
    after: list[_Panel] = []
    for kind, encoder, position in rows[["kind", "encoder", "position"]].to_numpy().tolist():
        name = f"{kind} token" + (f", encoder {encoder}" if several else "")
        panel = _Panel(name, maps.token_heatmap(position, **how.keywords()), special=True)
        (before if kind == "start" else after).append(panel)
    return [*before, *panels, *after]


def _draw_sound(ax: Axes, log_mel: np.ndarray, maps: AttentionMaps) -> None:
    draw_spectrogram(log_mel, maps.grid, ax=ax)
    ax.set(xlabel="", ylabel="")
    ax.set_title("spectrogram", fontsize=9, loc="left", pad=3, style="italic")


def _norm(panels: list[_Panel], scale: str, signed: bool) -> tuple[Normalize, bool]:
    """Return the colour scale, and whether values exceed it."""
    if scale == "own":
        return normed(1.0, signed=signed), False
    words = [panel for panel in panels if not panel.special] or panels
    highest = max(panel.highest for panel in words)
    return normed(highest or 1.0, signed=signed), any(panel.highest > highest for panel in panels)


def _beneath(maps: AttentionMaps, how: _How, spectrogram: bool | np.ndarray | xr.DataArray) -> np.ndarray | None:
    if isinstance(spectrogram, bool):
        own = maps.spectrogram if spectrogram else None
        return None if own is None else own.isel(prompt=how.prompt_index, image=how.sample).to_numpy()
    return checked(spectrogram)


def _columns(panels: int, width: float | None) -> int:
    columns = next((across for most, across in ((3, 1), (8, 2), (18, 3), (32, 4), (50, 5)) if panels <= most), 7)
    return columns if width is None else min(columns, max(1, int((width - 1.3) / 1.6)))


def _panel_size(columns: int, width: float | None) -> tuple[float, float]:
    """Return the width and height of a panel in inches."""
    wide, high = {1: (6.4, 1.8), 2: (4.2, 1.5), 3: (3.2, 1.35)}.get(columns, (2.5, 1.2))
    return (wide, high) if width is None else ((width - 1.3) / columns, min(high, 1.35))


def _title(prompt: str, width: float) -> tuple[str, int]:
    """Return the quoted prompt, wrapped to the width in inches, and its number of lines."""
    lines = textwrap.wrap(f"“{readable(prompt)}”", width=max(20, int(width * 11)), max_lines=3, placeholder=" …")
    return "\n".join(lines), len(lines)
