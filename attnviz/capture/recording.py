"""What was seen of one pipeline call."""

from __future__ import annotations

from attnviz.capture.conditioning import Conditioning
from attnviz.capture.store import AttentionStore


class Recording:
    """Everything seen of one pipeline call.

    Attributes
    ----------
    conditioning : Conditioning
        What the call was conditioned on.
    timesteps : list of float
        The timestep of each denoiser call seen to its end.
    expected_calls : int
        Denoiser calls the pipeline announced; 0 before the first one.
    latent_size : tuple of int
        Rows and columns of the latents, from the tensor the U-Net got; (0, 0) before the first call.
    grids : dict
        Rows and columns of each layer, from the 4-D tensor its transformer block got.
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
        """Whether every announced denoiser call was seen to its end."""
        return bool(self.timesteps) and len(self.timesteps) == self.expected_calls
