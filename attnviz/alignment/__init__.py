"""Scores of maps against sound events. Never touches a model.

Sound event detection scores of frame scores, equal to those of the package sed_scores_eval: :func:`psds`, over
all thresholds, and :func:`segment_f1`, at one.
"""

from attnviz.alignment.psds import PsdsResult, psds
from attnviz.alignment.scored_clips import EventCounts
from attnviz.alignment.segments import SegmentF1Result, segment_f1

__all__ = ["EventCounts", "PsdsResult", "SegmentF1Result", "psds", "segment_f1"]
