"""One way to have a U-Net look at a real clip: noise it to chosen timesteps, several times over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch

from attnviz.errors import CaptureError

Look = Callable[[torch.Tensor, int], torch.Tensor]
"""The U-Net, looking with the caption's keys: latents (rows, ...) and their timestep in, its prediction out.
Each look is one step of the maps; `rows` are averaged."""


@dataclass(frozen=True)
class Noising:
    """The clip under fresh noise, at each of some timesteps.

    Parameters
    ----------
    timesteps : tuple of int
        Timesteps of the training schedule, in the order they are looked at.
    draws : int
        Rows of each look: noise draws.
    seed : int
        Fixes the noise.
    """

    timesteps: tuple[int, ...]
    draws: int
    seed: int

    @classmethod
    def checked(cls, timesteps: Sequence[int], draws: int, seed: int, schedule: torch.Tensor) -> Noising:
        """Settle the arguments, or refuse them.

        Raises
        ------
        CaptureError
            If there is no timestep, one is repeated or not in the schedule, there is no draw, or the seed is no
            whole number from 0.
        """
        try:
            steps = list(timesteps)
        except TypeError as error:
            raise CaptureError(f"timesteps={timesteps!r} is not a sequence; for one, (50,) is meant.") from error
        for step in steps:
            if not _is_whole(step) or not 0 <= step < len(schedule):
                raise CaptureError(
                    f"timesteps holds {step!r}; they are whole numbers from 0 (hardly any noise) to "
                    f"{len(schedule) - 1} (nothing but noise), of the schedule the model was trained on."
                )
        if not steps or len(set(steps)) < len(steps):
            raise CaptureError(
                f"timesteps={timesteps!r} must hold at least one, and none twice; for more noise draws there is "
                "draws=."
            )
        if not _is_whole(draws) or draws < 1:
            raise CaptureError(f"draws={draws!r} is not a whole number from 1.")
        if not _is_whole(seed) or seed < 0:
            raise CaptureError(f"seed={seed!r} is not a whole number from 0.")
        return cls(tuple(int(step) for step in steps), int(draws), int(seed))

    @property
    def looks(self) -> int:
        """How many looks there will be."""
        return len(self.timesteps)

    @property
    def settings(self) -> dict[str, Any]:
        """What the maps' provenance says of it."""
        return {"method": "noising", **asdict(self)}

    def run(self, look: Look, latents: torch.Tensor, schedule: torch.Tensor) -> None:
        """Have the U-Net look at the noised clip.

        Parameters
        ----------
        look : callable
            The U-Net; see `Look`.
        latents : torch.Tensor, shape (1, channels, rows, columns), float32
            The clip.
        schedule : torch.Tensor, shape (timesteps,)
            Share of the signal's variance at each timestep (``alphas_cumprod``).
        """
        for timestep in self.timesteps:
            kept = float(schedule[timestep])
            look(kept**0.5 * latents + (1 - kept) ** 0.5 * self.noise(timestep, latents), timestep)

    def noise(self, timestep: int, latents: torch.Tensor) -> torch.Tensor:
        """Draw the noise of one timestep: (draws, channels, rows, columns), float32, on the latents' device.

        A draw depends on the seed, the timestep and its own number alone: asking for other timesteps too, or for
        more draws, changes none. It is drawn on the CPU, so that it is the same for every device.
        """
        key = np.random.SeedSequence((self.seed, timestep)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key[0]))
        draws = [torch.randn(latents.shape[1:], generator=generator) for _ in range(self.draws)]
        return torch.stack(draws).to(latents.device)


def training_schedule(scheduler: Any) -> torch.Tensor:
    """Give the noise schedule a scheduler was made for, leaving the scheduler as it is.

    Returns
    -------
    torch.Tensor, shape (timesteps,)
        ``alphas_cumprod``: share of the signal's variance that is left at each timestep.

    Raises
    ------
    CaptureError
        If the scheduler has none (flow matching, for example).

    Notes
    -----
    ``scheduler.add_noise`` is not called: it moves the scheduler's own tensors between devices, and several
    schedulers know only the timesteps of the last generation.
    """
    schedule = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(schedule, torch.Tensor):
        raise CaptureError(
            f"{type(scheduler).__name__} has no alphas_cumprod, so how much noise belongs to a timestep is not "
            "known. Use a scheduler of the model's own training schedule, such as PNDMScheduler or DDIMScheduler."
        )
    return schedule


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
