"""Choose the scenes of each batch and derive the seed of every random draw of a training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from attnviz.training.part import Batch, Part
from attnviz.training.scene_store import SceneStore

# First word after the seed: each purpose draws from its own stream. Every seed has four words, because NumPy pads
# shorter ones with zeros: (1, 2) and (1, 2, 0) are the same seed.
_ORDER, _BATCH, _STEP = 1, 2, 3


@dataclass(frozen=True)
class Batches:
    """Random access to the batches of a training by number.

    Parameters
    ----------
    part : Part
        Makes a batch from scenes.
    scenes : SceneStore
        Training scenes. Each epoch uses a new random order; a batch at the end of one epoch continues into the
        next.
    size : int
        Number of scenes per batch.
    seed : int
        Seed of the orders and of the random draws of `part`.
    processes, process : int
        Number of training processes, and the index of this one. Together they use `processes` batches per number.
    """

    part: Part
    scenes: SceneStore
    size: int
    seed: int
    processes: int = 1
    process: int = 0

    def __getitem__(self, number: int) -> Batch:
        """Return a batch on the CPU."""
        rng = np.random.default_rng((self.seed, _BATCH, number, self.process))
        return self.part.batch(self.scenes, self.indices(number), rng)

    def indices(self, number: int) -> np.ndarray:
        """Return the indices of the scenes in a batch, shape ``(size,)``."""
        first = (number * self.processes + self.process) * self.size
        epochs, places = np.divmod(np.arange(first, first + self.size), len(self.scenes))
        orders = (_order(self.seed, int(epoch), len(self.scenes)) for epoch in epochs)
        return np.array([order[place] for order, place in zip(orders, places, strict=True)])


@lru_cache(maxsize=2)  # the current epoch and the next, which a batch may extend into
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    order = np.random.default_rng((seed, _ORDER, epoch, 0)).permutation(count)
    order.flags.writeable = False
    return order


def step_seed(seed: int, step: int, process: int) -> int:
    """Return the seed of a model's random draws in a step: noise and dropout."""
    return int(np.random.SeedSequence((seed, _STEP, step, process)).generate_state(1)[0])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch to a device."""
    return {name: item.to(device) if isinstance(item, torch.Tensor) else item for name, item in batch.items()}
