"""Figures: they draw what is given, compute no score and touch no global state of matplotlib."""

from attnviz.plots.alignment import AlignmentArtists, alignment
from attnviz.plots.spectrogram import spectrogram
from attnviz.plots.words import word_maps

__all__ = ["AlignmentArtists", "alignment", "spectrogram", "word_maps"]
