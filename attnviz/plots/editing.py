"""Plot an edit and its source: spectrograms, maps of the edited words, and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from attnviz.arguments import public
from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.layer import cells_of
from attnviz.plots.heat import SIGNED, ground_halves, heatmap
from attnviz.plots.spectrogram import DECIBEL, label_decibels, spectrogram
from attnviz.plots.style import (
    FONTSIZE,
    extent,
    hatch_padding,
    label_axes,
    mel_position,
    readable,
    text_style,
    wrapped,
)
from attnviz.wording import short_repr

_WIDTH, _HEIGHT = 3.9, 1.75  # size of a panel in inches


@dataclass(frozen=True)
class EditedWord:
    """Maps of a word before and after an edit.

    Attributes
    ----------
    before, after : xarray.DataArray or None, dims (freq, time)
        Results of `AttentionMaps.heatmap`, or None if there is no such word.
    old, new : str
        The word before and after the edit.
    """

    before: xr.DataArray | None
    after: xr.DataArray | None
    old: str = ""
    new: str = ""

    __repr__ = short_repr


@public
def edit_comparison(
    before: np.ndarray,
    after: np.ndarray,
    grid: SpectrogramGrid,
    *,
    words: Sequence[EditedWord] = (),
    titles: tuple[str, str] = ("source", "edit"),
    span: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
) -> Figure:
    """Draw an edit and its source.

    The first row shows spectrograms, and the others the maps of each word: from left to right, before, after, and
    the difference after minus before (of the spectrograms in dB). The spectrograms share a scale, as do the two
    maps of a word. Columns beyond the audio are hatched.

    Parameters
    ----------
    before, after : numpy.ndarray, shape (bands, frames)
        Natural-log mel spectrograms, lowest band first.
    grid : SpectrogramGrid
        Grid of the spectrograms, which defines times and frequencies.
    words : sequence of EditedWord
        Words to draw.
    titles : (str, str)
        Titles of source and edit.
    span, band : (float, float), optional
        Seconds and Hz of a regenerated part, framed on the spectrograms.

    Returns
    -------
    matplotlib.figure.Figure
        A new figure.

    Raises
    ------
    MapsError
        If the spectrograms differ in shape, or a word has no map, or maps of different shapes.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> before, after = example_maps(), example_maps(seed=1)
    >>> sounds = (maps.spectrogram[0, 0].to_numpy() for maps in (before, after))
    >>> word = EditedWord(before.heatmap("dog"), after.heatmap("dog"), "dog", "dog")
    >>> figure = edit_comparison(*sounds, before.grid, words=[word])
    >>> [ax.get_title(loc="left") for ax in figure.axes[:3]]
    ['source', 'edit', 'edit minus source']
    """
    if before.shape != after.shape:
        raise MapsError(f"The spectrograms have the shapes {before.shape} and {after.shape}; they must be equal.")
    if not all(isinstance(word, EditedWord) for word in words):
        raise MapsError("words must be a list of EditedWord: a word, and its maps before and after the edit.")
    rows = 1 + len(words)
    figure = Figure(figsize=(3 * _WIDTH + 0.9, rows * (_HEIGHT + 0.35) + 0.4), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    images = [_spectrogram(ax, values, grid) for ax, values in zip(axes[0], (before, after), strict=False)]
    label_decibels(_bar(images[1], "log-mel (dB)"))
    decibels = (after - before) / DECIBEL
    _difference(axes[0, 2], decibels, grid.cells(*before.shape), grid, "log-mel difference (dB)")
    if span is not None or band is not None:
        for ax in axes[0]:
            _frame(ax, span, band, grid)
    for row, word in zip(axes[1:], words, strict=True):
        _word(row, word, (before, after), grid)
    for ax, title in zip(axes[0], (*titles, f"{titles[1]} minus {titles[0]}"), strict=True):
        _title(ax, title)
    for number, row in enumerate(axes):
        shown = [ax for ax in row if ax.get_visible()]
        for ax in shown:
            ax.set_xlabel("")
            ax.set_ylabel("")
            ax.tick_params(labelleft=ax is shown[0], labelbottom=number == rows - 1)
    figure.supxlabel("time (s)", fontsize=FONTSIZE + 1)
    figure.supylabel("frequency (Hz)", fontsize=FONTSIZE + 1)
    return figure


def _spectrogram(ax: Axes, values: np.ndarray, grid: SpectrogramGrid) -> AxesImage:
    (image,) = spectrogram(values, grid, ax=ax, colorbar=False).images
    label_axes(ax, grid, height=_HEIGHT, fontsize=FONTSIZE)
    return image


def _word(
    row: np.ndarray, word: EditedWord, beneath: tuple[np.ndarray, np.ndarray], grid: SpectrogramGrid
) -> None:
    maps = [heat for heat in (word.before, word.after) if heat is not None]
    if not maps or len({heat.shape for heat in maps}) > 1:
        raise MapsError(
            f"The word {word.new or word.old!r} has {len(maps)} maps of the shapes "
            f"{[heat.shape for heat in maps]}; give one or two maps of the same shape."
        )
    heard = [heat.to_numpy()[:, ~heat["padding"].to_numpy()] for heat in maps]
    highest = max(float(np.abs(values).max(initial=0.0)) for values in heard) or 1.0
    below_zero = any(float(values.min(initial=0.0)) < 0 for values in heard)  # for a word with a negative weight
    last = row[1] if word.after is not None else row[0]
    for ax, heat, under, name in zip(row, (word.before, word.after), beneath, (word.old, word.new), strict=False):
        if heat is None:
            ax.set_visible(False)
            continue
        if below_zero:
            image = _signed(ax, heat.to_numpy(), cells_of(heat, grid), grid, highest)
        else:
            image = heatmap(heat, grid, spectrogram=under, highest=highest, colorbar=False, ax=ax).images[-1]
            label_axes(ax, grid, height=_HEIGHT, fontsize=FONTSIZE)
        if ax is last:
            bar = _bar(image, "attention")
            if not below_zero:  # otherwise on white
                bar.set_label(wrapped(f"attention{ground_halves(bar.ax)}", _HEIGHT, FONTSIZE), fontsize=FONTSIZE)
        _title(ax, name)
    if len(maps) < 2:
        row[2].set_visible(False)
        return
    _difference(
        row[2], maps[1].to_numpy() - maps[0].to_numpy(), cells_of(maps[0], grid), grid, "attention difference"
    )
    _title(row[2], "difference")


def _frame(
    ax: Axes, span: tuple[float, float] | None, band: tuple[float, float] | None, grid: SpectrogramGrid
) -> None:
    """Frame a part of a spectrogram: white over black, which is seen on every colour."""
    left, right = (0.0, grid.seconds) if span is None else span
    low, high = (0.0, 1.0) if band is None else (float(mel_position(grid, hz)) for hz in band)
    for width, colour in ((2.4, "black"), (1.0, "white")):
        ax.add_patch(
            Rectangle(
                (left, low), right - left, high - low, fill=False, edgecolor=colour, linewidth=width, zorder=6
            )
        )


def _difference(ax: Axes, values: np.ndarray, cells: CellGrid, grid: SpectrogramGrid, label: str) -> None:
    most = float(np.abs(values[:, ~cells.padding]).max(initial=0.0)) or 1.0
    _bar(_signed(ax, values, cells, grid, most), label)


def _signed(ax: Axes, values: np.ndarray, cells: CellGrid, grid: SpectrogramGrid, most: float) -> AxesImage:
    """Draw signed values, with white at 0."""
    image = ax.imshow(
        values, origin="lower", extent=extent(cells), aspect="auto", interpolation="nearest", cmap=SIGNED,
        vmin=-most, vmax=most,
    )  # fmt: skip
    label_axes(ax, grid, height=_HEIGHT, fontsize=FONTSIZE)
    hatch_padding(ax, cells, cells.padding)
    return image


def _bar(image: AxesImage, label: str) -> Colorbar:
    bar = image.axes.figure.colorbar(image, ax=image.axes, pad=0.01, aspect=12)
    bar.set_label(label, fontsize=FONTSIZE)
    bar.ax.tick_params(labelsize=FONTSIZE)
    return bar


def _title(ax: Axes, text: str) -> None:
    ax.set_title(readable(text, longest=48), fontsize=FONTSIZE + 1, loc="left", pad=3, **text_style())
