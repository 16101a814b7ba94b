"""Choose excerpts of scenes in which something can be heard."""

from __future__ import annotations

import math

import numpy as np
import torch

from attnviz.audio import MEL, image_to_mel
from attnviz.training.part import Batch
from attnviz.training.scene_store import SceneStore

_DB_PER_NEPER = 20 / math.log(10)


def audible_excerpts(
    scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator, columns: int, audible_db: float
) -> Batch:
    """Return an excerpt of each scene around a random audible column.

    Parameters
    ----------
    scenes : SceneStore
    indices : numpy.ndarray of int
        Scenes of the excerpts.
    rng : numpy.random.Generator
    columns : int
        Length of an excerpt in columns of the spectrogram (10 ms).
    audible_db : float
        Cells of the spectrogram within this many dB of the maximum of their scene are audible.

    Returns
    -------
    dict
        ``mels`` ``(batch, 256, columns)``, ``waves`` ``(batch, columns x 160)`` float32 in [-1, 1], ``floors``
        ``(batch, 1, 1)``: the minimum log-mel value of audible cells.
    """
    hop = MEL.hop_length
    mels, waves, floors = [], [], []
    for i in indices:
        mel = scene_log_mel(scenes, int(i))
        floors.append(audible_floor(mel, audible_db))
        column = rng.choice(np.flatnonzero((mel >= floors[-1]).any(dim=0).numpy()))
        start = np.clip(column - rng.integers(columns), 0, mel.shape[1] - columns)
        mels.append(mel[:, start : start + columns])
        waves.append(scenes.audio[i, start * hop : (start + columns) * hop])
    return {
        "mels": torch.stack(mels),
        "waves": scaled(np.stack(waves)),
        "floors": torch.stack(floors)[:, None, None],
    }


def scaled(audio: np.ndarray) -> torch.Tensor:
    """Return int16 audio as float32 in [-1, 1]."""
    return torch.from_numpy(np.asarray(audio, dtype=np.float32) / 32768)


def scene_log_mel(scenes: SceneStore, number: int) -> torch.Tensor:
    """Return the log-mel spectrogram of a stored scene, shape ``(256, columns)``."""
    return image_to_mel(torch.from_numpy(np.asarray(scenes.images[number], dtype=np.float32)))


def audible_floor(mel: torch.Tensor, audible_db: float) -> torch.Tensor:
    """Return the minimum log-mel value of audible cells: `audible_db` below the maximum."""
    return mel.max() - audible_db / _DB_PER_NEPER
