"""The observations of one pipeline call."""

from __future__ import annotations

from attnviz.capture.conditioning import Conditioning
from attnviz.capture.store import AttentionStore


class Recording:
    """Everything observed during one pipeline call.

    Attributes
    ----------
    conditioning : Conditioning
        Embeddings that condition the call.
    timesteps : list of float
        Timestep of each completed denoiser call.
    expected_calls : int
        Number of denoiser calls that the pipeline announced; 0 before the first one.
    latent_size : tuple of int
        Rows and columns of the latents, from the U-Net's input tensor; (0, 0) before the first call.
    grids : dict
        Rows and columns of each layer, from the 4-D input of its transformer block.
    store : AttentionStore or None
        None before the first denoiser call.
    ended : bool
        Whether the pipeline call is over.
    """

    def __init__(self, conditioning: Conditioning) -> None:
        self.conditioning = conditioning
        self.timesteps: list[float] = []
        self.expected_calls = 0
        self.latent_size = (0, 0)
        self.grids: dict[str, tuple[int, int]] = {}
        self.store: AttentionStore | None = None
        self.ended = False

    @property
    def complete(self) -> bool:
        """Whether every announced denoiser call was completed."""
        return bool(self.timesteps) and len(self.timesteps) == self.expected_calls
