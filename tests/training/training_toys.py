"""A part that trains in a blink, and scenes made by formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from attnviz.training.config import TrainingConfig
from attnviz.training.part import Part, Player
from attnviz.training.scene_store import SceneStore

COLUMNS = 1024
SCENES = 10
UNET = {
    "sample_size": 64,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def toy_scenes(count: int = SCENES) -> SceneStore:
    rng = np.random.default_rng(7)
    return SceneStore(
        images=rng.random((count, 256, COLUMNS), dtype=np.float32).astype(np.float16),
        audio=np.zeros((count, 16), dtype=np.int16),
        activity=np.zeros((count, 10, COLUMNS), dtype=bool),
        captions=[f"scene {i}" for i in range(count)],
        sounds=[[] for _ in range(count)],
        name="toy",
    )


class ToyPlayer(Player):
    """A small convolution, channels last as the auto-encoder is, with a dropout that draws and a buffer."""

    def __init__(self, net: torch.nn.Module, noisy: bool) -> None:
        super().__init__()
        self.net, self.dropout = net, torch.nn.Dropout(0.3 if noisy else 0.0)

    def forward(self, batch):
        made = self.net(batch["images"].to(memory_format=torch.channels_last))
        loss = (self.dropout(made) - batch["noise"]).square().mean()
        return loss, {"loss": loss}


class ToyPart(Part):
    """Predicts noise from corners of the images; `seen` lists which scenes were asked for."""

    def __init__(self, config: TrainingConfig, *, noisy: bool = True) -> None:
        self.shipped = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 3, 1)
        ).to(memory_format=torch.channels_last)
        if not noisy:  # each item for itself, so that batches may be cut as one likes
            self.shipped[1] = torch.nn.Identity()
        self.players = [ToyPlayer(self.shipped, noisy)]
        self.noisy, self.seen = noisy, []
        self.before_batch = lambda number: None

    def batch(self, scenes, indices, rng):
        self.seen.append(list(map(int, indices)))
        self.before_batch(len(self.seen))
        images = torch.from_numpy(np.asarray(scenes.images[indices, :6, :10], dtype=np.float32))
        images = images[:, None].expand(-1, 3, -1, -1).contiguous()
        noise = torch.from_numpy(rng.standard_normal(images.shape).astype(np.float32)) if self.noisy else images
        return {"images": images, "noise": noise}

    def validate(self, scenes, device):
        return {"weight": float(self.shipped[2].weight.sum())}

    def sample(self, scenes, folder: Path, device):
        (folder / "weight.txt").write_text(f"{float(self.shipped[2].weight.sum())}\n")

    def export(self, folder: Path):
        safetensors.torch.save_file(
            {name: tensor.contiguous() for name, tensor in self.shipped.state_dict().items()},
            folder / "toy.safetensors",
        )


def toy_config(**changes) -> TrainingConfig:
    settings = {
        "part": "listener",
        "steps": 7,
        "batch_size": 3,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "warmup_steps": 2,
        "ema_decay": 0.9,
        "checkpoint_every": 2,
        "sample_every": 3,
        "log_every": 3,
        "data": {"folds": [1], "scenes": SCENES},
        "model": {},
        "seed": 5,
        **changes,
    }
    return TrainingConfig.from_dict(settings)


def config(part, model, **changes):
    settings = {"part": part, "steps": 2, "batch_size": 2, "learning_rate": 1e-3, "model": model, "seed": 3}
    return TrainingConfig.from_dict({**settings, "data": {"folds": [1], "scenes": 3}, **changes})


def stepped(part, scenes, steps=1, rate=1e-3):
    """Losses of a few optimiser steps on one batch."""
    batch = part.batch(scenes, np.array([0, 2]), np.random.default_rng(0))
    player = part.players[0].train()
    optimizer = torch.optim.AdamW(player.trained(), lr=rate)
    losses = []
    for _ in range(steps):
        torch.manual_seed(0)
        loss, _ = player(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
