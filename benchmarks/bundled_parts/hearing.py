"""Scores of the listener on mel images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from harness.material import Clip
from sklearn.metrics import average_precision_score

from attnviz.listener.model import Listener
from attnviz.scenes import CLASSES


def hear(listener: Listener, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return frame probabilities ``(clips, 10, frames)`` of mel images."""
    heard = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            batch = torch.from_numpy(np.stack(images[start : start + 16]).astype(np.float32))
            heard.append(listener(batch).sigmoid().numpy())
    return np.concatenate(heard)


def average_precisions(heard: np.ndarray, clips: Sequence[Clip]) -> dict[str, float]:
    """Return the average precision of frames over all clips for each class; NaN for absent classes."""
    truth = np.stack([clip.activity(heard.shape[2]) for clip in clips])
    return {
        name: float(average_precision_score(truth[:, i].ravel(), heard[:, i].ravel()))
        if truth[:, i].any()
        else float("nan")
        for i, name in enumerate(CLASSES)
    }
