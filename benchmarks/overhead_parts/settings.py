"""Settings of a study: sizes, repetitions, tools."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
"""The U-Net of Stable Diffusion 1.5: 860 million parameters, 16 cross-attention layers."""

TINY_UNET: dict[str, Any] = {
    **SD15_UNET,
    "block_out_channels": (8, 16, 16, 16),
    "norm_num_groups": 4,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
}
"""The same 16 layers, narrow enough for a test."""

PARTS = ("own", "memory", "time")


@dataclass(frozen=True)
class Settings:
    """Settings of a study.

    Attributes
    ----------
    tiny : bool
        Use a narrow U-Net for a smoke test.
    tools : tuple of str
        Names from `overhead_parts.tools`; ``"none"`` is always included.
    parts : tuple of str
        Any of ``"own"``, ``"memory"`` and ``"time"``.
    device, dtype : str
        ``"cpu"`` or ``"cuda"``; name of a torch dtype.
    threads : int
        Number of CPU threads; 0 for torch's default.
    height, width : int
        Size in pixels; the latent grid is an eighth of each.
    steps : int
        Denoiser calls per generation in the time part.
    rounds : int
        Number of runs per tool in the time part.
    own_calls, own_rounds : int
        Denoiser calls per run, and number of rounds, of the hollow U-Net.
    memory_steps : tuple of int
        Step counts at which peak memory of a whole generation is measured.
    hollow_memory_steps : tuple of int
        The same with the hollow U-Net, which shows growth per step without the activations.
    prompt : str
        Prompt of the generations.
    """

    tiny: bool = False
    tools: tuple[str, ...] = ("none", "attnviz", "daam", "attention-map-diffusers")
    parts: tuple[str, ...] = PARTS
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    height: int = 256
    width: int = 1024
    steps: int = 2
    rounds: int = 6
    own_calls: int = 4
    own_rounds: int = 8
    memory_steps: tuple[int, ...] = (1, 3)
    hollow_memory_steps: tuple[int, ...] = (2, 8)
    prompt: str = "a dog barks twice while rain falls on a tin roof and a man speaks"

    @property
    def unet(self) -> dict[str, Any]:
        """Configuration of the U-Net."""
        return TINY_UNET if self.tiny else SD15_UNET

    def as_tiny(self) -> Settings:
        """Return settings with which the whole study takes seconds."""
        return replace(
            self,
            tiny=True,
            height=256,  # Auffusion's: attnviz gives no other picture seconds and hertz
            width=64,
            steps=2,
            rounds=2,
            own_calls=3,
            own_rounds=2,
            memory_steps=(1, 2),
            hollow_memory_steps=(1, 3),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-serialisable values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Create settings from the result of `to_dict`."""
        restored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**restored)
