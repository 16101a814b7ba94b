"""Create the part that a configuration names."""

from __future__ import annotations

from pathlib import Path

import torch

from attnviz.training.config import TrainingConfig
from attnviz.training.part import Part
from attnviz.training.scene_store import SceneStore


def make_part(config: TrainingConfig, scenes: SceneStore, cache: Path, device: torch.device) -> Part:
    """Create the part that a configuration names, with new or pretrained weights.

    Parameters
    ----------
    config : TrainingConfig
        ``model`` and ``objective`` are the settings of the part.
    scenes : SceneStore
        Training scenes. For the U-Net, their latents are computed once.
    cache : pathlib.Path
        Cache folder for latents and unigram pieces.
    device : torch.device
        Device on which latents are computed.

    Raises
    ------
    TrainingError
        If the settings of the part are invalid.
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
    if config.part == "text":
        from attnviz.training.text import TextPart

        return TextPart(config, scenes, cache)
    if config.part == "codec":
        from attnviz.training.codec import CodecPart

        return CodecPart(config)
    if config.part == "musicgen":
        from attnviz.training.musicgen import MusicgenPart

        return MusicgenPart(config, scenes, cache, device)
    from attnviz.training.unet import UnetPart

    return UnetPart(config, scenes, cache, device)
