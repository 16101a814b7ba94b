"""Scores of a whole pool, PSDS1 and segment F1, where each phrase is treated as a clip with one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DETECTION = ("psds1", "segment_f1")
"""Scores that are defined for a whole pool."""


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """Detection scores of a pool and of every bootstrap resample.

    Attributes
    ----------
    values : numpy.ndarray, shape (2,)
        In the order of `DETECTION`; NaN if there are no phrases.
    replicates : numpy.ndarray, shape (n_resamples, 2)
    phrases : int
        Number of scored phrases.
    """

    values: np.ndarray
    replicates: np.ndarray
    phrases: int
