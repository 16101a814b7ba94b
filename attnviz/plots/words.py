"""One heat map per word over the spectrogram."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, Readout
from attnviz.plots.spectrogram import value_range
from attnviz.plots.style import extent, hatch_padding, label_axes, readable, text_style

_BENEATH = LinearSegmentedColormap.from_list("attnviz_beneath", ["#ffffff", "#868686"])
_FONTSIZE = 8.0


@dataclass(frozen=True)
class _Panel:
    title: str
    heat: xr.DataArray
    special: bool


def word_maps(
    maps: AttentionMaps,
    *,
    prompt: int = 0,
    image: int = 0,
    words: Iterable[str | tuple[int, int]] | None = None,
    special_tokens: bool = False,
    readout: Readout = "mean",
    pool: str = "mean",
    grid: str = "finest",
    scale: Literal["shared", "own"] = "shared",
    spectrogram: bool | np.ndarray | xr.DataArray = True,
    cmap: str = "magma_r",
    columns: int | None = None,
) -> Figure:
    """Draw where each word was attended to, over the grey spectrogram of the sound.

    Colour and opacity grow with attention, from none at 0, so a map that is everywhere the same looks the same
    everywhere. Columns beyond the audio are hatched; they take no part in the colour scale.

    Parameters
    ----------
    maps : AttentionMaps
    prompt, image : int
        Which prompt, and which of its images.
    words : iterable of str or (int, int), optional
        Phrases or character spans; None: every word whose map is here, repeated words each.
    special_tokens : bool
        Also draw start and end tokens, where stored. They often take most of the attention, so they do not
        set the shared scale: what exceeds it is drawn in its highest colour, and the colour bar ends in an arrow.
    readout, pool, grid
        As for `AttentionMaps.heatmap`.
    scale : {"shared", "own"}
        One colour scale for all words, from 0 to the highest value of any of them, with its colour bar; or each
        word relative to its own highest value, which its title then states (so a word that hardly matters looks
        as present as any).
    spectrogram : bool or array (bands, frames)
        What is drawn beneath: the maps' own log-mel spectrogram where they have one, nothing (False), or this
        one, lowest band first.
    cmap : str
        A matplotlib colour map, light at its low end, perceptually uniform and safe for colour-blind readers:
        ``"magma_r"``, ``"viridis_r"``, ``"cividis_r"``.
    columns : int, optional
        Panels side by side; None: by their number.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, ``figure.savefig("words.png")``; no global state of matplotlib is touched.

    Raises
    ------
    MapsError
        If there is no word to draw, the scale is unknown, or as `AttentionMaps.heatmap`.
    PromptError
        If a phrase is not in the prompt, or is repeated and given without its span.
    """
    if scale not in ("shared", "own"):
        raise MapsError(f"scale={scale!r} is unknown; it is 'shared' or 'own'.")
    how = _How(prompt, image, readout, pool, grid)
    panels = _panels(maps, how, words, special_tokens)
    if not panels:
        raise MapsError("There is no word to draw: none of the prompt's words was stored in full.")
    across = columns or _columns(len(panels))
    if across < 1:
        raise MapsError(f"columns={columns} must be at least 1.")
    down = math.ceil(len(panels) / across)
    width, height = _panel_size(across)
    title, lines = _title(maps.prompts[prompt], across * width)
    figure = Figure(
        figsize=(across * width + 1.3, down * (height + 0.3) + 0.55 + 0.2 * lines), layout="constrained"
    )
    figure.suptitle(title, fontsize=10, **text_style())
    axes = figure.subplots(down, across, squeeze=False)
    beneath = _beneath(maps, how, spectrogram)
    colours = _see_through(cmap)
    norm, over = _norm(panels, scale)
    for number, (ax, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        _draw(
            ax, panel, maps, beneath, colours, norm if scale == "shared" else Normalize(0, _highest(panel) or 1.0)
        )
        label_axes(ax, maps.grid, height=height, fontsize=_FONTSIZE)
        ax.tick_params(labelbottom=number + across >= len(panels), labelleft=number % across == 0)
        if number // across < down - 1:
            # Above the gap of a last, shorter row: its labels hang into the gap, and need no room of their own.
            ax.xaxis.set_in_layout(False)
        peak = f"   max {_highest(panel):.2g}" if scale == "own" else ""
        ax.set_title(
            readable(panel.title, longest=int(width * 13)) + peak,
            fontsize=9, loc="left", pad=3, style="italic" if panel.special else "normal", **text_style(),
        )  # fmt: skip
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel("frequency (Hz)", fontsize=9)
    _colour_bar(figure, axes, colours, norm, panels, over=over, own=scale == "own")
    return figure


@dataclass(frozen=True)
class _How:
    """Which map of a phrase is drawn."""

    prompt: int
    image: int
    readout: Readout
    pool: str
    grid: str

    def keywords(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "image": self.image,
            "readout": self.readout,
            "pool": self.pool,
            "grid": self.grid,
        }


def _panels(
    maps: AttentionMaps, how: _How, words: Iterable[str | tuple[int, int]] | None, special_tokens: bool
) -> list[_Panel]:
    chosen: list[tuple[str, str | tuple[int, int]]]
    if words is None:
        chosen = [(word.label, word.span) for word in maps.occurrences(how.prompt)]
    else:
        text = maps.prompts[how.prompt]
        chosen = [(word if isinstance(word, str) else text[word[0] : word[1]], word) for word in words]
    panels = [_Panel(title, maps.heatmap(word, **how.keywords()), special=False) for title, word in chosen]
    if not special_tokens:
        return panels
    rows = maps.tokens[how.prompt].rows
    rows = rows[rows["kind"].isin(["start", "end"]) & rows["position"].isin(maps.positions)]
    several = rows["encoder"].nunique() > 1
    before: list[_Panel] = []
    after: list[_Panel] = []
    for kind, encoder, position in rows[["kind", "encoder", "position"]].to_numpy().tolist():
        name = f"{kind} token" + (f", encoder {encoder}" if several else "")
        panel = _Panel(name, maps.token_heatmap(position, **how.keywords()), special=True)
        (before if kind == "start" else after).append(panel)
    return [*before, *panels, *after]


def _draw(
    ax: Axes,
    panel: _Panel,
    maps: AttentionMaps,
    beneath: np.ndarray | None,
    colours: ListedColormap,
    norm: Normalize,
) -> None:
    where: dict[str, Any] = {
        "origin": "lower",
        "extent": extent(maps.grid),
        "aspect": "auto",
        "interpolation": "nearest",
    }
    ax.set_facecolor("white")
    if beneath is not None:
        low, high = value_range(beneath, maps.grid.padding(beneath.shape[1]))
        ax.imshow(beneath, cmap=_BENEATH, vmin=low, vmax=high, **where)
    ax.imshow(panel.heat.to_numpy(), cmap=colours, norm=norm, **where)
    hatch_padding(ax, maps.grid, panel.heat["padding"].to_numpy())


def _colour_bar(
    figure: Figure,
    axes: np.ndarray,
    colours: ListedColormap,
    norm: Normalize,
    panels: list[_Panel],
    *,
    over: bool,
    own: bool,
) -> None:
    quantity = str(panels[0].heat.attrs["long_name"])
    label = "share of the word's own maximum" if own else quantity
    down = axes.shape[0]
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, label=label, extend="max" if over else "neither",
        shrink=min(1.0, 4.0 / down) if down > 4 else 1.0, aspect=18 * min(down, 4) / 2, pad=0.012,
    )  # fmt: skip
    bar.ax.set_facecolor("white")
    bar.ax.tick_params(labelsize=_FONTSIZE)


def _norm(panels: list[_Panel], scale: str) -> tuple[Normalize, bool]:
    """The shared colour scale, and whether something exceeds it."""
    if scale == "own":
        return Normalize(0, 1), False
    words = [panel for panel in panels if not panel.special] or panels
    highest = max(_highest(panel) for panel in words)
    return Normalize(0, highest or 1.0), any(_highest(panel) > highest for panel in panels)


def _highest(panel: _Panel) -> float:
    """Highest value of the columns that are not padding; 0 where all are."""
    heard = panel.heat.to_numpy()[:, ~panel.heat["padding"].to_numpy()]
    return float(heard.max()) if heard.size else 0.0


def _beneath(maps: AttentionMaps, how: _How, spectrogram: bool | np.ndarray | xr.DataArray) -> np.ndarray | None:
    if isinstance(spectrogram, bool):
        own = maps.spectrogram if spectrogram else None
        return None if own is None else own.isel(prompt=how.prompt, image=how.image).to_numpy()
    values = np.asarray(spectrogram, dtype=float)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).any():
        raise MapsError(
            f"spectrogram must be an array (bands, frames) of finite values; it has shape {values.shape}."
        )
    return values


def _see_through(cmap: str) -> ListedColormap:
    """The colour map with opacity growing from none, so that the spectrogram shows where attention is low."""
    try:
        # Not to its very end, where such maps are black: the spectrogram would no longer show through.
        colours = colormaps[cmap](np.linspace(0, 0.86, 256))
    except KeyError as error:
        raise MapsError(f"matplotlib has no colour map {cmap!r}; for example 'magma_r' or 'viridis_r'.") from error
    colours[:, 3] = 0.86 * np.linspace(0, 1, 256) ** 0.6
    return ListedColormap(colours, name=f"{cmap}_see_through")


def _columns(panels: int) -> int:
    for most, columns in ((3, 1), (8, 2), (18, 3), (32, 4), (50, 5)):
        if panels <= most:
            return columns
    return 7


def _panel_size(columns: int) -> tuple[float, float]:
    """Width and height of a panel in inches."""
    return {1: (6.4, 1.8), 2: (4.2, 1.5), 3: (3.2, 1.35)}.get(columns, (2.5, 1.2))


def _title(prompt: str, width: float) -> tuple[str, int]:
    """The prompt in quotes, wrapped to the width in inches, and its number of lines."""
    lines = textwrap.wrap(f"“{readable(prompt)}”", width=max(20, int(width * 11)), max_lines=3, placeholder=" …")
    return "\n".join(lines), len(lines)
