"""Cache the latents and reconstructions of stored scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from attnviz import bundled
from attnviz.errors import TrainingError
from attnviz.models.pipelines.parts import read_model
from attnviz.training.scene_cache import cached, scenes_digest
from attnviz.training.scene_store import SceneStore
from attnviz.training.vae import ENCODER, to_vae


def cached_latents(
    vae: AutoencoderKL, scenes: SceneStore, cache: Path, device: torch.device, precision: str = "no"
) -> np.ndarray:
    """Return the latents of every scene, from the cache if they are there.

    Parameters
    ----------
    vae : AutoencoderKL
        Auto-encoder. The latents are the means of its posterior times its scaling factor.
    scenes : SceneStore
        Scenes to encode.
    cache : pathlib.Path
        Cache folder.
    device : torch.device
        Device of the computation.
    precision : {"no", "bf16", "fp16"}
        Mixed precision of accelerate, as in the training.

    Returns
    -------
    numpy.ndarray
        Array ``(scenes, channels, rows, columns)`` of float16, memory-mapped.

    Raises
    ------
    OutputError
        If the cache cannot be written.
    """
    path = cache / f"latents-{precision}-{scenes_digest(scenes, vae_digest(vae, ENCODER))}.npy"
    return cached(path, len(scenes), "Encoding", _computed(vae, scenes, device, precision, _encoded))


def cached_reconstructions(
    vae: AutoencoderKL,
    scenes: SceneStore,
    cache: Path,
    device: torch.device,
    precision: str = "no",
    *,
    count: int,
) -> np.ndarray:
    """Return the auto-encoder's reconstructions of the first scenes, from the cache if they are there.

    Parameters
    ----------
    vae, scenes, cache, device, precision
        See :func:`cached_latents`.
    count : int
        Number of scenes, at most all.

    Returns
    -------
    numpy.ndarray
        Array ``(count, 256, columns)`` of float16 in [0, 1], memory-mapped.

    Raises
    ------
    OutputError
        If the cache cannot be written.
    """
    count = min(count, len(scenes))
    path = cache / f"reconstructions-{count}-{precision}-{scenes_digest(scenes, vae_digest(vae))}.npy"
    return cached(path, count, "Reconstructing", _computed(vae, scenes, device, precision, _decoded))


def _computed(
    vae: AutoencoderKL,
    scenes: SceneStore,
    device: torch.device,
    precision: str,
    compute: Callable[[AutoencoderKL, torch.Tensor], torch.Tensor],
) -> Callable[[int], np.ndarray]:
    """Return the function of a scene's number that passes its image through the auto-encoder."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def of_scene(number: int) -> np.ndarray:
        image = to_vae(scenes.images[number : number + 1]).to(device, vae.dtype)
        with torch.autocast(device.type, kind, enabled=kind is not None):
            found = compute(vae, image).float().cpu().numpy()[0].astype(np.float16)
        if not np.isfinite(found).all():
            raise TrainingError(
                f"the auto-encoder returns values outside the range of float16 for scene {number} in "
                f"precision {precision!r}. "
                'Try mixed_precision = "bf16" or "no".'
            )
        return found

    vae.to(device).eval()
    return of_scene


def _encoded(vae: AutoencoderKL, image: torch.Tensor) -> torch.Tensor:
    return vae.encode(image).latent_dist.mean * vae.config.scaling_factor


def _decoded(vae: AutoencoderKL, image: torch.Tensor) -> torch.Tensor:
    decoded = vae.decode(vae.encode(image).latent_dist.mean).sample
    return (decoded[:, 0] / 2 + 0.5).clamp(0, 1)


def read_vae(folder: str) -> AutoencoderKL:
    """Read an auto-encoder; ``"bundled"`` is the shipped one.

    Raises
    ------
    CheckpointError
        If the folder does not contain an auto-encoder.
    """
    return read_model(
        AutoencoderKL, bundled.FOLDER / "vae" if folder == bundled.NAME else Path(folder), torch.float32
    )


def vae_digest(vae: AutoencoderKL, prefixes: tuple[str, ...] = ("",)) -> str:
    """Return a digest of the settings and weights of an auto-encoder, or of some of its modules."""
    settings = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    known = hashlib.sha256(repr(sorted(settings.items())).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(prefixes):
            known.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return known.hexdigest()[:16]
