"""Settings of a study: sizes, repetitions, tools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

PARTS = ("own", "memory", "time")


@dataclass(frozen=True)
class Settings:
    """Settings of a study.

    Attributes
    ----------
    model : str
        Name in `overhead_parts.models`.
    tiny : bool
        Use a narrow model for a smoke test.
    tools : tuple of str
        Names from `overhead_parts.tools`; ``"none"`` is always included.
    parts : tuple of str
        Any of ``"own"``, ``"memory"`` and ``"time"``.
    device, dtype : str
        ``"cpu"`` or ``"cuda"``; name of a torch dtype.
    threads : int
        Number of CPU threads; 0 for torch's default.
    steps : int
        Denoiser calls per generation in the time part.
    rounds : int
        Number of runs per tool in the time part.
    own_calls, own_rounds : int
        Denoiser calls per run, and number of rounds, of the hollow model.
    memory_steps : tuple of int
        Step counts at which peak memory of a whole generation is measured.
    hollow_memory_steps : tuple of int
        The same with the hollow model, which shows growth per step without the activations.
    prompt : str
        Prompt of the generations.
    """

    model: str = "sd15"
    tiny: bool = False
    tools: tuple[str, ...] = ("none", "attnviz", "daam", "attention-map-diffusers")
    parts: tuple[str, ...] = PARTS
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    steps: int = 2
    rounds: int = 6
    own_calls: int = 4
    own_rounds: int = 8
    memory_steps: tuple[int, ...] = (1, 3)
    hollow_memory_steps: tuple[int, ...] = (2, 8)
    prompt: str = "a dog barks twice while rain falls on a tin roof and a man speaks"

    def as_tiny(self) -> Settings:
        """Return settings with which the whole study takes seconds."""
        return replace(
            self,
            tiny=True,
            steps=2,
            rounds=2,
            own_calls=3,
            own_rounds=2,
            memory_steps=(1, 2),
            hollow_memory_steps=(1, 3),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Create settings from those in ``study.json``."""
        restored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**restored)
