"""A trained listener on disk: its network, how its probabilities are decoded, and how well it hears."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from attnviz import bundled
from attnviz.errors import CheckpointError
from attnviz.io.json_files import read_json
from attnviz.sounds.decoding import Decoding
from attnviz.sounds.listener_model import Listener

BUNDLED = bundled.FOLDER / "listener"
QUALITY_NAME = "quality.json"


@dataclass(frozen=True, eq=False)
class TrainedListener:
    """A network with what was tuned and measured for it.

    Attributes
    ----------
    listener : Listener
        The network.
    decoding : Decoding
        How its probabilities become events.
    quality : dict or None
        See :func:`read_quality`.
    """

    listener: Listener
    decoding: Decoding
    quality: dict[str, Any] | None


def trained_listener(model: str | os.PathLike[str] | Listener | None) -> TrainedListener:
    """Return the bundled listener, or that of a folder, or a network with default decoding and no known quality.

    Raises
    ------
    CheckpointError
        The listener is missing or damaged.
    """
    if isinstance(model, Listener):
        return TrainedListener(model, Decoding(), None)
    if model is None:
        return _bundled()
    try:
        folder = Path(model).expanduser()
    except (TypeError, RuntimeError) as error:  # of another type; an unknown user's home
        raise CheckpointError(
            f"model is {model!r}; the folder of a listener, or a Listener, is needed."
        ) from error
    return _read(folder)


@lru_cache(maxsize=1)
def _bundled() -> TrainedListener:
    if not BUNDLED.is_dir():
        raise CheckpointError(
            f"this copy of attnviz holds no listener: there is no folder {BUNDLED}. Give the folder of a trained "
            "one as model, or install attnviz anew."
        )
    return _read(BUNDLED)


def _read(folder: Path) -> TrainedListener:
    return TrainedListener(Listener.from_pretrained(folder), Decoding.load(folder), read_quality(folder))


def read_quality(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read how well a listener was measured to hear recordings it was not trained on.

    Parameters
    ----------
    folder : path-like
        The listener's, with a ``quality.json`` such as
        ``{"fold": 4, "frame_map": 0.81, "psds1": 0.4, "ap": {"Dog bark": 0.9, ...}}``.

    Returns
    -------
    dict or None
        ``fold``: of ESC-10; ``frame_map``: mean over classes of the average precision of frames; ``psds1``;
        ``ap``: average precision of frames by class. More may be there. None: there is no such file, so
        nothing is known.

    Raises
    ------
    CheckpointError
        The file is damaged, or a score is not in [0, 1].
    """
    path = Path(folder) / QUALITY_NAME
    if not path.exists():
        return None
    quality = read_json(path, error=CheckpointError)
    try:
        scores = [quality["frame_map"], quality["psds1"], *quality["ap"].values()]
        if not isinstance(quality["fold"], int) or not all(0 <= score <= 1 for score in scores):
            raise ValueError("fold is a whole number, and scores are in [0, 1]")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be used: {type(error).__name__}: {error}.") from error
    return quality
