"""Load a trained listener: its network, decoding and measured quality."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from attnviz import bundled
from attnviz.errors import CheckpointError
from attnviz.io.json_files import read_json
from attnviz.io.paths import checked_path
from attnviz.listener.decoding import Decoding
from attnviz.listener.model import Listener

BUNDLED = bundled.FOLDER / "listener"
QUALITY_NAME = "quality.json"


@dataclass(frozen=True, eq=False)
class TrainedListener:
    """A listener network with its decoding and measured quality.

    Attributes
    ----------
    listener : Listener
        The network.
    decoding : Decoding
        Settings that decode probabilities into events.
    quality : dict or None
        See :func:`read_quality`.
    """

    listener: Listener
    decoding: Decoding
    quality: dict[str, Any] | None


def trained_listener(model: str | os.PathLike[str] | Listener | None) -> TrainedListener:
    """Return the bundled listener, the listener of a folder, or a network with default decoding.

    Raises
    ------
    CheckpointError
        If the listener is missing or damaged.
    """
    if isinstance(model, Listener):
        return TrainedListener(model, Decoding(), None)
    if model is None:
        return _bundled()
    try:
        folder = checked_path(model, "model", CheckpointError)
    except (TypeError, RuntimeError) as error:  # wrong type, or "~" of an unknown user
        raise CheckpointError(f"model is {model!r}; expected the folder of a listener, or a Listener.") from error
    return _read(folder)


@lru_cache(maxsize=1)
def _bundled() -> TrainedListener:
    if not BUNDLED.is_dir():
        raise CheckpointError(
            f"this installation of attnviz has no listener: the folder {BUNDLED} does not exist. Give the folder "
            "of a trained listener as model, or reinstall attnviz."
        )
    return _read(BUNDLED)


def _read(folder: Path) -> TrainedListener:
    return TrainedListener(Listener.from_pretrained(folder), Decoding.load(folder), read_quality(folder))


def read_quality(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the scores of a listener, measured on recordings not used in training.

    Parameters
    ----------
    folder : path-like
        Folder of the listener, with a file ``quality.json`` such as
        ``{"fold": 4, "frame_map": 0.81, "psds1": 0.4, "ap": {"Dog bark": 0.9, ...}}``.

    Returns
    -------
    dict or None
        ``fold``: fold of ESC-10; ``frame_map``: mean over classes of the frame-wise average precision; ``psds1``;
        ``ap``: frame-wise average precision by class. Other keys are allowed. None if the file does not exist.

    Raises
    ------
    CheckpointError
        If the file is damaged, or a score is not in [0, 1].
    """
    path = Path(folder) / QUALITY_NAME
    if not path.exists():
        return None
    quality = read_json(path, error=CheckpointError)
    try:
        scores = [quality["frame_map"], quality["psds1"], *quality["ap"].values()]
        if not isinstance(quality["fold"], int) or not all(0 <= score <= 1 for score in scores):
            raise ValueError("fold must be a whole number, and scores must be in [0, 1]")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be used: {type(error).__name__}: {error}.") from error
    return quality
