"""The figures of a paper, of saved runs: fixed widths of one or two columns, every scale said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnviz.diagnosis import Diagnosis
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, Readout, attention_share, word_overlap
from attnviz.plots import matrices, scores
from attnviz.plots.curves import activations, event_places
from attnviz.plots.failures import failures
from attnviz.plots.rolls import denoising_steps, piano_roll
from attnviz.plots.spectrogram import spectrogram
from attnviz.plots.style import FONTSIZE, readable, text_style
from attnviz.plots.words import word_maps

if TYPE_CHECKING:
    from attnviz.report.saved_run import SavedRun

MOST_WORDS = 12
"""Words of one figure, where none are chosen: more would not fit a page. A figure says what it leaves out."""

_MOST_PANELS = 6
_NO_SOUND = "The run has no spectrogram: neither spectrogram.npz nor its maps hold a number of one."

Span = tuple[int, int]


@dataclass(frozen=True)
class Style:
    """Sizes of a document's figures.

    Attributes
    ----------
    one, two : float
        Widths in inches, of one column and of two.
    tallest : float
        Height in inches that no figure exceeds.
    dpi : int
        Of the PNG files.
    """

    one: float
    two: float
    tallest: float
    dpi: int


STYLES = {"paper": Style(one=3.35, two=6.9, tallest=9.0, dpi=300)}
"""Styles by name; ``"paper"`` fits two-column pages (IEEE, ACM, ISCA) and the text width of one-column ones."""


@dataclass(frozen=True)
class FigureSet:
    """Draws the figures of one run.

    Attributes
    ----------
    run : SavedRun
        As `attnviz.report.saved_run.read_saved_run` reads it.
    style : Style
    chosen : tuple of (int, int)
        Phrases that are drawn; none: those that the run's events name, or else every word.
    readout : str or FittedReadout
        As for `AttentionMaps.heatmap`.
    found : Diagnosis or None
        What `attnviz.diagnose` found in the run; None: there is no figure of it.
    """

    run: SavedRun
    style: Style
    chosen: tuple[Span, ...] = ()
    readout: Readout = "mean"
    found: Diagnosis | None = None

    def drawers(self) -> Mapping[str, Callable[[], Figure]]:
        """Return what draws each figure, by its name.

        Each raises `AttnVizError` where the run has not what the figure would show. Without a diagnosis there is
        no figure of it.
        """
        drawers = {
            "spectrogram": self.spectrogram,
            "words": self.words,
            "activations": self.activations,
            "tokens": self.tokens,
            "overlap": self.overlap,
            "layers": self.layers,
            "steps": self.steps,
            "alignment": self.alignment,
        }
        return drawers if self.found is None else {**drawers, "diagnosis": self.diagnosis}

    def spectrogram(self) -> Figure:
        """Draw the clip's spectrogram; two columns."""
        if self.run.log_mel is None:
            raise MapsError(_NO_SOUND)
        ax = self._axes(self.style.two, 2.3)
        spectrogram(self.run.log_mel, self.maps.grid, ax=ax, colorbar=True)
        return _figure(ax)

    def words(self) -> Figure:
        """Draw a heat map per word over the spectrogram, on one scale; two columns."""
        spans, note = self._first(MOST_WORDS)
        sound = False if self.run.log_mel is None else self.run.log_mel
        figure = word_maps(self.maps, words=spans, readout=self.readout, spectrogram=sound, width=self.style.two)
        notes = [note, "the run has no spectrogram" if self.run.log_mel is None else ""]
        said = "; ".join(one for one in notes if one)
        if said:
            figure.suptitle(f"{figure.get_suptitle()}\n({said})", fontsize=10, **text_style())
            figure.set_figheight(figure.get_figheight() + 0.2)
        return figure

    def activations(self) -> Figure:
        """Draw when each phrase was attended to, over the bars of its events; two columns."""
        lanes = {} if self.chosen else self._events
        spans, note = ([], "") if lanes else self._first(MOST_WORDS)
        ax = self._axes(self.style.two, 1.0 + 0.36 * len(lanes or spans))
        activations(self.maps, self.run.events, phrases=spans or None, readout=self.readout, ax=ax)
        _say(ax, note)
        return _figure(ax)

    def tokens(self) -> Figure:
        """Draw when each token was attended to; two columns."""
        stored = int((self.maps.tokens[0].rows["kind"] == "text").sum())
        ax = self._axes(self.style.two, 1.1 + 0.16 * max(stored, 3))
        piano_roll(self.maps, readout=self.readout, ax=ax)
        return _figure(ax)

    def overlap(self) -> Figure:
        """Draw how alike the words' maps are; one column, of many words two."""
        matrix = word_overlap(self.maps, readout=self.readout)
        wide = self.style.one if len(matrix) <= 8 else self.style.two
        ax = self._axes(wide, 0.82 * wide)
        matrices.word_overlap(matrix, ax=ax)
        return _figure(ax)

    def layers(self) -> Figure:
        """Draw each word's share of attention by layer and head; without heads, by layer and word."""
        height = 0.9 + 0.16 * len(self.maps.layers)
        heads = "head" in self.maps[self.maps.layers[0]].dims
        spans, note = self._first(self._held(height) if heads else MOST_WORDS)
        shares = {span: attention_share(self.maps, span) for span in spans}
        if not heads:
            names = self._names(spans)
            table = pd.concat([share.assign(word=names[span]) for span, share in shares.items()])
            ax = self._axes(self.style.two, 1.1 + 0.2 * len(self.maps.layers))
            matrices.layer_heads(table, across="word", label="share of attention", ax=ax)
            _say(ax, note)
            return _figure(ax)
        top = max(float(share["share"].max()) for share in shares.values())
        figure, panels = self._panels(spans, height, note)
        for span, ax in panels:
            matrices.layer_heads(shares[span], label="share of attention", limits=(0.0, top), ax=ax)
            self._name(ax, span)
        return figure

    def steps(self) -> Figure:
        """Draw when each word was attended to at each denoising step; two columns."""
        spans, note = self._first(self._held(1.6))
        figure, panels = self._panels(spans, 1.6, note)
        for span, ax in panels:
            denoising_steps(self.maps, span, readout=self.readout, ax=ax)
            self._name(ax, span)
        return figure

    def alignment(self) -> Figure:
        """Draw the saved scores of each phrase beside its controls; two columns."""
        if self.run.scores is None:
            raise MapsError("The run has no alignment.csv; attnviz align writes it.")
        rows = self.run.scores["phrase"].nunique()
        ax = self._axes(self.style.two, 1.0 + 0.24 * max(rows, 2))
        scores.phrase_scores(self.run.scores, ax=ax)
        return _figure(ax)

    def diagnosis(self) -> Figure:
        """Draw the signs of failure that were looked for; two columns."""
        if self.found is None:
            raise MapsError("Nothing was looked for in the run: attnviz.diagnose(maps) does.")
        ax = self._axes(self.style.two, 1.3 + 0.26 * len(self.found.findings))
        failures(self.found, ax=ax)
        return _figure(ax)

    @property
    def maps(self) -> AttentionMaps:
        """The run's maps."""
        return self.run.maps

    def _axes(self, width: float, height: float) -> Axes:
        return Figure(figsize=(width, min(height, self.style.tallest)), layout="constrained").add_subplot()

    def _held(self, height: float) -> int:
        """Return how many panels of a height, two abreast, a page holds."""
        return min(_MOST_PANELS, 2 * max(int((self.style.tallest - 0.3) / height), 1))

    def _panels(self, spans: Sequence[Span], height: float, note: str) -> tuple[Figure, list[tuple[Span, Axes]]]:
        """Make a panel a phrase, two abreast."""
        down = math.ceil(len(spans) / 2)
        figure = Figure(figsize=(self.style.two, down * height + 0.3), layout="constrained")
        if note:
            figure.suptitle(note, fontsize=FONTSIZE + 1)
        axes = figure.subplots(down, 2, squeeze=False).ravel().tolist()
        for ax in axes[len(spans) :]:
            ax.set_visible(False)
        return figure, list(zip(spans, axes, strict=False))

    @property
    def _events(self) -> dict[tuple[str, Span | None], np.ndarray]:
        """The run's events by their label and its place in the prompt."""
        return event_places(self.run.events, self.maps.prompts[0])

    def _first(self, most: int) -> tuple[list[Span], str]:
        """Return the phrases to draw, chosen ones, those of events, or words; and what is left out of a figure."""
        named = sorted({span for _, span in self._events if span})
        words = [word.span for word in self.maps.occurrences(0)]
        choices = {"chosen phrases": list(self.chosen), "phrases with events": named, "words": words}
        kind, spans = next(((kind, spans) for kind, spans in choices.items() if spans), ("words", []))
        if not spans:
            raise MapsError("The run has no word whose map was stored in full.")
        return spans[:most], f"the first {most} of {len(spans)} {kind}" if len(spans) > most else ""

    def _names(self, spans: Sequence[Span]) -> dict[Span, str]:
        """Name phrases, repeated words by their occurrence."""
        labels = {word.span: word.label for word in self.maps.occurrences(0)}
        return {span: labels.get(span, self.maps.prompts[0][slice(*span)]) for span in spans}

    def _name(self, ax: Axes, span: Span) -> None:
        name = readable(self._names([span])[span], longest=40)
        ax.set_title(name, fontsize=FONTSIZE + 1, loc="left", pad=3, **text_style())


def _say(ax: Axes, note: str) -> None:
    if note:
        ax.set_title(note, fontsize=FONTSIZE, loc="right", pad=3)


def _figure(ax: Axes) -> Figure:
    figure = ax.figure
    if not isinstance(figure, Figure):
        raise MapsError("The axes are of a subfigure; these figures are whole.")
    return figure
