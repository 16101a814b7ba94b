"""Cache what is computed of each stored scene."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from attnviz.errors import TrainingError
from attnviz.io.storage import whole_or_nothing
from attnviz.training.scene_store import SceneStore


def cached(path: Path, count: int, what: str, compute: Callable[[int], np.ndarray]) -> np.ndarray:
    """Return an array of the first scenes, from the cache if it is there.

    Parameters
    ----------
    path : pathlib.Path
        File of the cache, whose name identifies everything that the values depend on.
    count : int
        Number of scenes.
    what : str
        Name of the computation, for the progress bar.
    compute : callable
        Returns the array of a scene, by its number; all have the same shape.

    Returns
    -------
    numpy.ndarray, shape (count, ...)
        Memory-mapped.

    Raises
    ------
    OutputError
        If the cache cannot be written.
    TrainingError
        If the file is damaged, or of another number of scenes.
    """
    if path.is_file():
        return _read(path, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_nothing(path, overwrite=False) as temporary, torch.no_grad():
        # One by one, because larger batches exceed the caches of a CPU.
        found = [compute(number) for number in track(range(count), f"{what} {count} scenes")]
        with temporary.open("wb") as file:
            np.save(file, np.stack(found))
    return _read(path, count)


def scenes_digest(scenes: SceneStore, *others: str) -> str:
    """Return a digest of a store of scenes and of other digests."""
    known = hashlib.sha256("".join(others).encode())
    # A part of the scenes is enough to distinguish stores.
    known.update("\n".join(scenes.captions).encode())
    known.update(np.ascontiguousarray(scenes.images[0]).tobytes())
    return known.hexdigest()[:16]


def _read(path: Path, count: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error}); remove it, and it will be computed again."
        ) from error
    if len(array) != count:
        raise TrainingError(
            f"{path} contains {len(array)} scenes instead of {count}; remove it, and it will be computed again."
        )
    return array
