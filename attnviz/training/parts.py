"""Which part is trained by what."""

from __future__ import annotations

from pathlib import Path

import torch

from attnviz.training.config import TrainingConfig
from attnviz.training.part import Part
from attnviz.training.scene_store import SceneStore


def make_part(config: TrainingConfig, scenes: SceneStore, cache: Path, device: torch.device) -> Part:
    """Return the part a configuration names, with fresh weights or those it goes on from.

    Parameters
    ----------
    config : TrainingConfig
        Its ``model`` and ``objective`` are the part's.
    scenes : SceneStore
        What it is trained on; the U-Net has their latents computed once.
    cache : pathlib.Path
        Where such latents are kept.
    device : torch.device
        Where they are computed.

    Raises
    ------
    TrainingError
        Settings of the part that are none.
    """
    if config.part == "vae":
        from attnviz.training.vae import VaePart

        return VaePart(config, scenes)
    if config.part == "listener":
        from attnviz.training.listener import ListenerPart

        return ListenerPart(config, scenes, cache, device)
    if config.part == "vocoder":
        from attnviz.training.vocoder import VocoderPart

        return VocoderPart(config)
    from attnviz.training.unet import UnetPart

    return UnetPart(config, scenes, cache, device)
