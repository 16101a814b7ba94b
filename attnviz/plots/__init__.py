"""Draw figures from maps and results. No scores are computed, and no global state of matplotlib is changed.

Functions with a parameter `ax` return the `~matplotlib.axes.Axes` (of a new figure, ``ax.figure``, if `ax` is
None). Functions that lay out a whole figure return the `~matplotlib.figure.Figure`.
"""

from attnviz.plots.alignment import alignment
from attnviz.plots.comparison import comparison, comparison_panels
from attnviz.plots.curves import activations
from attnviz.plots.editing import EditedWord, edit_comparison
from attnviz.plots.failures import failures
from attnviz.plots.heat import heatmap
from attnviz.plots.matrices import layer_heads, word_overlap
from attnviz.plots.profiles import profile_curve
from attnviz.plots.rolls import denoising_steps, piano_roll
from attnviz.plots.scores import phrase_scores
from attnviz.plots.spectrogram import spectrogram
from attnviz.plots.words import word_maps

__all__ = [
    "EditedWord",
    "activations",
    "alignment",
    "comparison",
    "comparison_panels",
    "denoising_steps",
    "edit_comparison",
    "failures",
    "heatmap",
    "layer_heads",
    "phrase_scores",
    "piano_roll",
    "profile_curve",
    "spectrogram",
    "word_maps",
    "word_overlap",
]
