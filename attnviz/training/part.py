"""Interface of the trainable parts of the model."""

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

    ``forward(batch)`` returns the loss, averaged over the batch, and values to log. Adversarial training has two
    players, which alternate on the same batches; all other trainings have one.
    """

    def trained(self) -> list[torch.nn.Parameter]:
        """Return the parameters optimised by this player."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch and tensors to log."""


class Part(ABC):
    """One part of the model in training.

    Attributes
    ----------
    players : sequence of Player
        In the order of their optimiser steps.
    shipped : torch.nn.Module
        Module that is averaged over steps (EMA), sampled and exported.
    frozen : str
        Digest of everything that is not trained but affects batches or losses. A training can only be resumed with
        the same digest.
    """

    players: Sequence[Player]
    shipped: torch.nn.Module
    frozen: str = ""

    @abstractmethod
    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the input of the players for some scenes; use `rng` for every random draw."""

    def validate(self, scenes: SceneStore, device: torch.device) -> Metrics:
        """Compute metrics of `shipped` on validation scenes."""
        return {}

    @abstractmethod
    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write samples that show the quality of `shipped` to `folder`."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write `shipped` to `folder` as part of a checkpoint; `sample` may not have been called before."""
