"""Which scenes a batch is made of, and from which seed each draw of a training comes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from attnviz.training.part import Batch, Part
from attnviz.training.scene_store import SceneStore

# First word after the seed: draws for different ends come from different streams. Seeds are four words each,
# since NumPy pads shorter ones with zeros: (1, 2) and (1, 2, 0) are one seed.
_ORDER, _BATCH, _STEP = 1, 2, 3


@dataclass(frozen=True)
class Batches:
    """Batch number `i` of a training, whenever it is asked for.

    Parameters
    ----------
    part : Part
        What makes a batch of scenes.
    scenes : SceneStore
        The scenes. They are gone through in an order drawn anew for every epoch; a batch in which one epoch
        ends goes on with the next.
    size : int
        Scenes of a batch.
    seed : int
        Of the orders and of what `part` draws.
    processes, process : int
        How many processes train, and which of them this is: side by side they take `processes` batches.
    """

    part: Part
    scenes: SceneStore
    size: int
    seed: int
    processes: int = 1
    process: int = 0

    def __getitem__(self, number: int) -> Batch:
        """Return a batch, on the CPU."""
        rng = np.random.default_rng((self.seed, _BATCH, number, self.process))
        return self.part.batch(self.scenes, self.indices(number), rng)

    def indices(self, number: int) -> np.ndarray:
        """Return which scenes are in a batch, ``(size,)``."""
        first = (number * self.processes + self.process) * self.size
        epochs, places = np.divmod(np.arange(first, first + self.size), len(self.scenes))
        orders = (_order(self.seed, int(epoch), len(self.scenes)) for epoch in epochs)
        return np.array([order[place] for order, place in zip(orders, places, strict=True)])


@lru_cache(maxsize=2)  # the epoch at hand and, where a batch reaches into it, the next
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    order = np.random.default_rng((seed, _ORDER, epoch, 0)).permutation(count)
    order.flags.writeable = False
    return order


def step_seed(seed: int, step: int, process: int) -> int:
    """Return the seed of what a model draws in a step: noise, dropout."""
    return int(np.random.SeedSequence((seed, _STEP, step, process)).generate_state(1)[0])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on a device."""
    return {name: item.to(device) if isinstance(item, torch.Tensor) else item for name, item in batch.items()}
