"""The model that ships with the package: a small Auffusion, trained on real recordings of ten sounds."""

from __future__ import annotations

import functools
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Where it is: a checkpoint in the adapter layout, with a listener beside it."""

NAME = "bundled"
"""What it is called in provenance."""


@functools.lru_cache
def unet_digest(dtype: str = "float32") -> str | None:
    """Digest the U-Net's weights that ship, in some precision; see `attnviz.capture.identity.weights_digest`.

    Parameters
    ----------
    dtype : str
        Name of a floating-point type of torch.
    """
    import torch  # here: whoever asks only where the model is need not wait for it
    from safetensors.torch import load_file

    from attnviz.capture.identity import Digests, named_digest

    weights = load_file(FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
    return named_digest({name: value.to(getattr(torch, dtype)) for name, value in weights.items()}, Digests())
