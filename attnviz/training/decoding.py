"""Tuning of a listener's thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.metrics import precision_recall_curve

from attnviz.errors import TrainingError
from attnviz.sounds.decoding import Decoding

_LOWEST, _HIGHEST = 0.01, 0.99


def tune_decoding(
    probabilities: np.ndarray,
    truth: np.ndarray,
    classes: Sequence[str],
    frame_seconds: float,
    decoding: Decoding | None = None,
) -> Decoding:
    """Pick each class's threshold for the highest F1 of frames.

    Parameters
    ----------
    probabilities : numpy.ndarray
        ``(clips, classes, frames)`` in [0, 1].
    truth : numpy.ndarray
        ``(clips, classes, frames)`` bool: whether the class sounds.
    classes : sequence of str
        Names, in the order of the second axis.
    frame_seconds : float
        Seconds from one frame to the next.
    decoding : Decoding, optional
        What is kept but for its thresholds; None: the defaults.

    Returns
    -------
    Decoding
        With a threshold in [0.01, 0.99] for each class: half way between the lowest score at or above it and
        the highest below. Chosen after the median filter, and without regard to hysteresis and `min_seconds`.

    Raises
    ------
    TrainingError
        Arrays of other shapes, or a class that never sounds.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    active = np.asarray(truth, dtype=bool)
    if given.ndim != 3 or given.shape != active.shape or given.shape[1] != len(classes):
        raise TrainingError(
            f"probabilities have the shape {given.shape} and the truth has {active.shape}; both need "
            f"(clips, {len(classes)} classes, frames)."
        )
    silent = [name for i, name in enumerate(classes) if not active[:, i].any()]
    if silent:
        raise TrainingError(f"{silent} never sound in the truth, so no threshold can be picked for them.")
    base = decoding or Decoding()
    smoothed = base.smooth(given, frame_seconds)
    thresholds = {
        name: _best_threshold(smoothed[:, i].ravel(), active[:, i].ravel()) for i, name in enumerate(classes)
    }
    return replace(base, threshold=thresholds)


def _best_threshold(scores: np.ndarray, active: np.ndarray) -> float:
    precision, recall, levels = precision_recall_curve(active, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1[: len(levels)].argmax())  # levels ascend, and "nothing" is left out at the end
    below = levels[best - 1] if best else 0.0
    return float(np.clip((levels[best] + below) / 2, _LOWEST, _HIGHEST))
