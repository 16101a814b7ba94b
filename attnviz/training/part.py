"""What a part of the model brings to its training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnviz.training.scene_store import SceneStore

Batch = dict[str, Any]
Metrics = Mapping[str, float]


class Player(torch.nn.Module):
    """Modules that are optimised together, and their loss.

    ``forward(batch)`` returns the loss, the mean over the batch, and what is worth logging. A training with an
    adversary has two, which take turns on the same batches; every other training has one.
    """

    def trained(self) -> list[torch.nn.Parameter]:
        """Parameters that this player optimises."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch, and tensors to log."""


class Part(ABC):
    """One part of the model in training.

    Attributes
    ----------
    players : sequence of Player
        In the order in which they take a step.
    shipped : torch.nn.Module
        What is averaged over steps (EMA), sampled from and exported.
    frozen : str
        Digest of what else goes into a batch or a loss and is not trained; a training whose was another is not
        gone on with.
    """

    players: Sequence[Player]
    shipped: torch.nn.Module
    frozen: str = ""

    @abstractmethod
    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return what the players see of some scenes; every draw comes from `rng`."""

    def validate(self, scenes: SceneStore, device: torch.device) -> Metrics:
        """Measure `shipped` on scenes it is not trained on."""
        return {}

    @abstractmethod
    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write into `folder` what shows how well `shipped` does."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write `shipped` into `folder`, as a checkpoint's part; in a resumed training no `sample` came before."""
