"""Train the listener."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from sklearn.metrics import average_precision_score

from attnviz import bundled
from attnviz.errors import CheckpointError, TrainingError
from attnviz.listener.model import Listener, ListenerConfig
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.latents import cached_reconstructions, read_vae, vae_digest
from attnviz.training.models import pretrained_folder
from attnviz.training.part import Batch, Part, Player
from attnviz.training.scene_store import SceneStore


@dataclass(frozen=True)
class ListenerObjective:
    """Augmentations of the training images, so that the listener generalises to unknown recordings.

    Parameters
    ----------
    gain : float
        Maximum random shift of the image values, up or down, on their [0, 1] scale (0.06 is 1 nat).
    tilt : float
        Maximum of a random curve over frequency by which the bands are shifted.
    blur : float
        Fraction of the images that are blurred in the way an auto-encoder blurs them.
    masked_columns, masked_rows : int
        Maximum width of the masked time span and of the masked bands (SpecAugment, arXiv 1904.08779).
    reconstructions : int
        Number of scenes, from the first, whose reconstruction by the auto-encoder is used as often as the scene
        itself. Generated sound is decoded by that auto-encoder, and lacks the noise of recordings. 0 disables it.
    vae : str
        Folder of that auto-encoder; ``"bundled"`` is the shipped one.
    mixup : float
        Fraction of the images that are mixed with another image of the batch by the maximum of each cell. The
        result contains the sounds of both.
    """

    gain: float = 0.06
    tilt: float = 0.05
    blur: float = 0.4
    masked_columns: int = 60
    masked_rows: int = 40
    mixup: float = 0.3
    reconstructions: int = 0
    vae: str = bundled.NAME


class _Detection(Player):
    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = self.listener(batch["images"]).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["activity"])
        return loss, {"loss": loss}


class ListenerPart(Part):
    """A `Listener` trained on whole scenes, with new augmentations each time."""

    shipped: Listener

    def __init__(self, config: TrainingConfig, scenes: SceneStore, cache: Path, device: torch.device) -> None:
        self.objective = read_settings(ListenerObjective, config.objective, "objective.")
        self.shipped = _listener(config.model)
        self.players = [_Detection(self.shipped)]
        self.reconstructions: np.ndarray | None = None
        if self.objective.reconstructions:
            vae = read_vae(self.objective.vae)
            self.frozen = vae_digest(vae)
            self.reconstructions = cached_reconstructions(
                vae, scenes, cache, device, config.mixed_precision, count=self.objective.reconstructions
            )

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return ``images`` ``(batch, 256, columns)`` and ``activity`` ``(batch, 10, frames)``."""
        images = torch.from_numpy(np.stack([self._image(scenes, i, rng) for i in indices]).astype(np.float32))
        activity = torch.from_numpy(np.asarray(scenes.activity[indices], dtype=np.float32))
        images, activity = _mix(images, activity, self.objective.mixup, rng)
        images = torch.stack([_altered(image, self.objective, rng) for image in images])
        return {"images": images, "activity": self._frames(activity)}

    def _image(self, scenes: SceneStore, i: int, rng: np.random.Generator) -> np.ndarray:
        known = self.reconstructions
        if known is not None and i < len(known) and rng.random() < 0.5:
            return known[i]
        return scenes.images[i]

    def _frames(self, activity: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool1d(activity, self.shipped.config.columns_per_frame)

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the frame-wise average precision, averaged over classes."""
        heard = np.concatenate([self._hear(scenes, slice(i, i + 16), device) for i in range(0, len(scenes), 16)])
        truth = self._frames(torch.from_numpy(np.asarray(scenes.activity, dtype=np.float32))).numpy() >= 0.5
        scores = {
            name: average_precision_score(truth[:, i].ravel(), heard[:, i].ravel())
            for i, name in enumerate(self.shipped.config.classes)
            if truth[:, i].any()
        }
        per_class = {f"ap_{name.lower().replace(' ', '_')}": value for name, value in scores.items()}
        return {"map": float(np.mean(list(scores.values()))), **per_class}

    def _hear(self, scenes: SceneStore, which: slice, device: torch.device) -> np.ndarray:
        images = torch.from_numpy(np.asarray(scenes.images[which], dtype=np.float32)).to(device)
        return self.shipped(images).sigmoid().float().cpu().numpy()

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write four spectrograms, with predicted probabilities and ground truth below each."""
        heard = self._hear(scenes, slice(0, 4), device)
        times = self.shipped.config.columns_per_frame
        rows = []
        for image, probabilities, truth in zip(scenes.images[:4], heard, scenes.activity[:4], strict=True):
            drawn = np.repeat(probabilities, times, axis=1)
            rows += [image, *(np.repeat(part.astype(np.float32), 8, axis=0) for part in (drawn, truth))]
        matplotlib.image.imsave(folder / "heard.png", np.concatenate(rows), cmap="magma", vmin=0, vmax=1)

    def export(self, folder: Path) -> None:
        """Write ``listener/``."""
        self.shipped.save_pretrained(folder / "listener")


def _listener(settings: Mapping[str, Any]) -> Listener:
    """Return a new listener, or the one in the folder `pretrained` or in the bundled model."""
    folder = pretrained_folder(settings, "listener")
    if folder is not None:
        return Listener.from_pretrained(folder)
    try:
        return Listener(ListenerConfig.from_dict(settings))
    except CheckpointError as error:
        raise TrainingError(f"[model]: {error}") from error


def _mix(
    images: torch.Tensor, activity: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    mixed = torch.from_numpy(rng.random(len(images)) < share)
    partners = torch.from_numpy(rng.permutation(len(images)))
    both = torch.maximum(images, images[partners])
    heard = torch.maximum(activity, activity[partners])
    return torch.where(mixed[:, None, None], both, images), torch.where(mixed[:, None, None], heard, activity)


def _altered(image: torch.Tensor, objective: ListenerObjective, rng: np.random.Generator) -> torch.Tensor:
    rows = image.shape[0]
    knots = torch.from_numpy(rng.uniform(-1, 1, size=(1, 1, 6)).astype(np.float32))
    tilt = torch.nn.functional.interpolate(knots, rows, mode="linear", align_corners=True)[0, 0]
    shift = rng.uniform(-1, 1) * objective.gain + objective.tilt * tilt[:, None]
    image = torch.where(image > 0, image + shift, image).clamp(0, 1)
    if rng.random() < objective.blur:
        high, wide = 2 * int(rng.integers(0, 4)) + 1, 2 * int(rng.integers(0, 4)) + 1
        padding = (high // 2, wide // 2)
        image = torch.nn.functional.avg_pool2d(image[None], (high, wide), 1, padding, count_include_pad=False)[0]
    for axis, widest in ((0, objective.masked_rows), (1, objective.masked_columns)):
        width = int(rng.integers(0, widest + 1))
        start = int(rng.integers(0, image.shape[axis] - width + 1))
        image.narrow(axis, start, width).fill_(0)
    return image
