"""Read a codec, and cache the codes of stored scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import EncodecModel

from attnviz.audio import MEL
from attnviz.capture.identity import Digests, weights_digest
from attnviz.errors import TrainingError
from attnviz.io.paths import checked_path
from attnviz.models.pipelines.parts import read_model
from attnviz.training.codec import encoded
from attnviz.training.excerpts import scaled
from attnviz.training.scene_cache import cached, scenes_digest
from attnviz.training.scene_store import SceneStore


def read_codec(folder: str) -> EncodecModel:
    """Read a codec that `attnviz train codec` wrote, or another ``EncodecModel`` of mono audio at 16 kHz.

    Raises
    ------
    CheckpointError
        If the folder does not contain an ``EncodecModel``.
    TrainingError
        If it is of another sampling rate or number of channels, or divides clips into chunks.
    """
    codec: EncodecModel = read_model(
        EncodecModel, checked_path(folder, "the folder of a codec", TrainingError), torch.float32
    )
    known = codec.config
    if known.sampling_rate != MEL.sampling_rate or known.audio_channels != 1 or known.chunk_length is not None:
        raise TrainingError(
            f"the codec in {folder} codes {known.audio_channels} channels at {known.sampling_rate} Hz, in chunks "
            f"of {known.chunk_length or 'any'} samples; scenes have one channel at {MEL.sampling_rate} Hz, and "
            "are coded whole."
        )
    return codec


def cached_codes(codec: EncodecModel, scenes: SceneStore, cache: Path, device: torch.device) -> np.ndarray:
    """Return the codes of every scene, from the cache if they are there.

    Returns
    -------
    numpy.ndarray of int16, shape (scenes, codebooks, frames)
        Memory-mapped.

    Raises
    ------
    OutputError
        If the cache cannot be written.
    """

    def of_scene(number: int) -> np.ndarray:
        wave = scaled(scenes.audio[number])[None].to(device)
        return encoded(codec, wave)[0].cpu().numpy().astype(np.int16)

    codec.to(device).eval()
    ratios = repr(codec.config.upsampling_ratios)  # shapes of weights do not tell all of them
    path = cache / f"codes-{scenes_digest(scenes, str(weights_digest(codec, Digests())), ratios)}.npy"
    return cached(path, len(scenes), "Coding", of_scene)
