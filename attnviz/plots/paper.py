"""Figures of saved runs for papers, with fixed widths of one or two columns and labelled scales."""

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
"""Maximum number of words in a figure by default, to fit a page. Figures indicate omitted words."""

_MOST_PANELS = 6
_NO_SOUND = "The run has no spectrogram: neither spectrogram.npz nor the maps contain finite values of one."

Span = tuple[int, int]


@dataclass(frozen=True)
class Style:
    """Sizes of the figures of a document.

    Attributes
    ----------
    one, two : float
        Widths of one and of two columns in inches.
    tallest : float
        Maximum height in inches.
    dpi : int
        Resolution of PNG files.
    """

    one: float
    two: float
    tallest: float
    dpi: int


STYLES = {"paper": Style(one=3.35, two=6.9, tallest=9.0, dpi=300)}
"""Styles by name; ``"paper"`` fits two-column pages (IEEE, ACM, ISCA) and the text width of one-column ones."""


@dataclass(frozen=True)
class FigureSet:
    """Figures of one run.

    Attributes
    ----------
    run : SavedRun
        Result of `attnviz.report.saved_run.read_saved_run`.
    style : Style
    chosen : tuple of (int, int)
        Phrases to draw. If empty, those named by the events of the run, or otherwise every word.
    readout : str or FittedReadout
        See `AttentionMaps.heatmap`.
    found : Diagnosis or None
        Result of `attnviz.diagnose` for the run, or None for no figure of it.
    """

    run: SavedRun
    style: Style
    chosen: tuple[Span, ...] = ()
    readout: Readout = "mean"
    found: Diagnosis | None = None

    def drawers(self) -> Mapping[str, Callable[[], Figure]]:
        """Return the drawing functions by the names of the figures.

        Each raises `AttnVizError` if the run lacks the data for its figure.
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
        """Draw the spectrogram of the clip (two columns)."""
        if self.run.log_mel is None:
            raise MapsError(_NO_SOUND)
        ax = self._axes(self.style.two, 2.3)
        spectrogram(self.run.log_mel, self.maps.grid, ax=ax, colorbar=True)
        return _figure(ax)

    def words(self) -> Figure:
        """Draw a heat map per word over the spectrogram, on one scale (two columns)."""
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
        """Draw the activation of each phrase over the bars of its events (two columns)."""
        lanes = {} if self.chosen else self._events
        spans, note = ([], "") if lanes else self._first(MOST_WORDS)
        ax = self._axes(self.style.two, 1.0 + 0.36 * len(lanes or spans))
        activations(self.maps, self.run.events, phrases=spans or None, readout=self.readout, ax=ax)
        _say(ax, note)
        return _figure(ax)

    def tokens(self) -> Figure:
        """Draw the attention to each token over time (two columns)."""
        stored = int((self.maps.tokens[0].rows["kind"] == "text").sum())
        ax = self._axes(self.style.two, 1.1 + 0.16 * max(stored, 3))
        piano_roll(self.maps, readout=self.readout, ax=ax)
        return _figure(ax)

    def overlap(self) -> Figure:
        """Draw the similarity of the maps of the words (one column, or two for many words)."""
        matrix = word_overlap(self.maps, readout=self.readout)
        wide = self.style.one if len(matrix) <= 8 else self.style.two
        ax = self._axes(wide, 0.82 * wide)
        matrices.word_overlap(matrix, ax=ax)
        return _figure(ax)

    def layers(self) -> Figure:
        """Draw the attention share of each word by layer and head or, without heads, by layer and word."""
        height = 0.9 + 0.16 * len(self.maps.layers)
        heads = "head" in self.maps[self.maps.layers[0]].dims
        spans, note = self._first(self._held(height) if heads else MOST_WORDS)
        shares = {span: attention_share(self.maps, span) for span in spans}
        if not heads:
            names = self._names(spans)
            table = pd.concat([share.assign(word=names[span]) for span, share in shares.items()])
            ax = self._axes(self.style.two, 1.1 + 0.2 * len(self.maps.layers))
            matrices.layer_heads(table, across="word", label="share per token", ax=ax)
            _say(ax, note)
            return _figure(ax)
        top = max(float(share["share"].max()) for share in shares.values())
        figure, panels = self._panels(spans, height, note)
        for span, ax in panels:
            matrices.layer_heads(shares[span], label="share per token", limits=(0.0, top), ax=ax)
            self._name(ax, span)
        return figure

    def steps(self) -> Figure:
        """Draw the attention to each word over time at each denoising step (two columns)."""
        spans, note = self._first(self._held(1.6))
        figure, panels = self._panels(spans, 1.6, note)
        for span, ax in panels:
            denoising_steps(self.maps, span, readout=self.readout, ax=ax)
            self._name(ax, span)
        return figure

    def alignment(self) -> Figure:
        """Draw the saved scores of each phrase and its controls (two columns)."""
        if self.run.scores is None:
            raise MapsError("The run has no alignment.csv; run attnviz align first.")
        rows = self.run.scores["phrase"].nunique()
        ax = self._axes(self.style.two, 1.0 + 0.24 * max(rows, 2))
        scores.phrase_scores(self.run.scores, ax=ax)
        return _figure(ax)

    def diagnosis(self) -> Figure:
        """Draw the signs of failure of the diagnosis (two columns)."""
        if self.found is None:
            raise MapsError("The run was not diagnosed; use attnviz.diagnose(maps).")
        ax = self._axes(self.style.two, 1.3 + 0.26 * len(self.found.findings))
        failures(self.found, ax=ax)
        return _figure(ax)

    @property
    def maps(self) -> AttentionMaps:
        """Maps of the run."""
        return self.run.maps

    def _axes(self, width: float, height: float) -> Axes:
        return Figure(figsize=(width, min(height, self.style.tallest)), layout="constrained").add_subplot()

    def _held(self, height: float) -> int:
        """Return the number of panels of a given height that fit on a page, two per row."""
        return min(_MOST_PANELS, 2 * max(int((self.style.tallest - 0.3) / height), 1))

    def _panels(self, spans: Sequence[Span], height: float, note: str) -> tuple[Figure, list[tuple[Span, Axes]]]:
        """Create one panel per phrase, two per row."""
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
        """Events of the run by label and span in the prompt."""
        return event_places(self.run.events, self.maps.prompts[0])

    def _first(self, most: int) -> tuple[list[Span], str]:
        """Return the phrases to draw (chosen ones, those of events, or words) and a note on omitted ones."""
        named = sorted({span for _, span in self._events if span})
        words = [word.span for word in self.maps.occurrences(0)]
        choices = {"chosen phrases": list(self.chosen), "phrases with events": named, "words": words}
        kind, spans = next(((kind, spans) for kind, spans in choices.items() if spans), ("words", []))
        if not spans:
            raise MapsError("The run has no word whose map was stored in full.")
        return spans[:most], f"the first {most} of {len(spans)} {kind}" if len(spans) > most else ""

    def _names(self, spans: Sequence[Span]) -> dict[Span, str]:
        """Return the names of phrases, with the occurrence for repeated words."""
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
        raise MapsError("The axes are in a subfigure, which is not supported.")
    return figure
