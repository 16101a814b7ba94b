"""Check the settings of the latents of `attnviz.explain`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from attnviz.arguments import whole_number
from attnviz.attribution.method import Attribution
from attnviz.diffusion.noising import Inversion, Latents, Noising, Predicted, fewest_steps
from attnviz.errors import CaptureError
from attnviz.tracing.keys import Tokens

LatentsName = Literal["noising", "inversion", "predicted"]

TIMESTEPS = (50, 150, 250, 400)
"""Timesteps of the training schedule, by default."""

_BELONGS = {
    "draws": ("noising", "predicted"),
    "seed": ("noising", "predicted"),
    "inversion_steps": ("inversion",),
    "look_timestep": ("predicted",),
}
"""Settings that apply to some latents only."""


@dataclass(frozen=True)
class Request:
    """Settings of `attnviz.explain`, as given; None selects a default."""

    method: Attribution
    latents: LatentsName
    timesteps: Sequence[int]
    draws: int | None
    seed: int | None
    inversion_steps: int | None
    look_timestep: int | None
    overlap: float | None
    normalize: bool
    randomize: int | str
    randomize_seed: int | None
    keep: Collection[Literal["step", "head"]]
    tokens: Tokens
    max_bytes: int

    def latents_for(self, schedule: int) -> Latents:
        """Return how the latents are computed, with checked settings, for a schedule of a number of timesteps.

        Raises
        ------
        CaptureError
            As `settled_latents`.
        """
        return settled_latents(
            self.latents,
            self.timesteps,
            draws=self.draws,
            seed=self.seed,
            inversion_steps=self.inversion_steps,
            look_timestep=self.look_timestep,
            schedule=schedule,
        )

    def weight_seed(self, blocks: list[str]) -> int:
        """Return the seed of randomised weights.

        Raises
        ------
        CaptureError
            If it is given, but nothing is randomised.
        """
        if self.randomize_seed is not None and not blocks:
            raise CaptureError(
                f"randomize_seed={self.randomize_seed!r} is given, but no block is randomised. Set randomize= as "
                "well."
            )
        return checked_whole("randomize_seed", 0 if self.randomize_seed is None else self.randomize_seed, least=0)


def check_without_noise(settings: Mapping[str, Any], family: str) -> None:
    """Reject settings of noise, for a model that has none.

    Parameters
    ----------
    settings : mapping
        Settings of `attnviz.explain`, by name; None, or a default, is not given.
    family : str
        Name of the model's family.

    Raises
    ------
    CaptureError
        With the settings that were given.
    """
    defaults = {
        "latents": "noising",
        "timesteps": TIMESTEPS,
        "draws": None,
        "seed": None,
        "inversion_steps": None,
        "look_timestep": None,
    }
    given = [
        f"{name}={settings[name]!r}"
        for name, default in defaults.items()
        if settings.get(name) is not None
        and not (isinstance(settings[name], type(default)) and settings[name] == default)
    ]
    if given:
        raise CaptureError(
            f"{', '.join(given)}: {family} writes codes one after the other, without noise and timesteps. Its "
            "maps are those of the clip's own codes; omit these settings."
        )


def settled_latents(
    latents: LatentsName,
    timesteps: Sequence[int],
    *,
    draws: int | None,
    seed: int | None,
    inversion_steps: int | None,
    look_timestep: int | None,
    schedule: int,
) -> Latents:
    """Return how the latents are computed, with checked settings; see `attnviz.explain`.

    Parameters
    ----------
    latents, timesteps, draws, seed, inversion_steps, look_timestep
        As for `attnviz.explain`; None selects the default.
    schedule : int
        Number of timesteps of the training schedule.

    Raises
    ------
    CaptureError
        If the name is unknown, or a setting is invalid or does not belong to these latents.
    """
    if latents not in get_args(LatentsName):
        raise CaptureError(f"latents={latents!r} is unknown; expected one of {', '.join(get_args(LatentsName))}.")
    given = {
        "draws": draws,
        "seed": seed,
        "inversion_steps": inversion_steps,
        "look_timestep": look_timestep,
    }
    for name, value in given.items():
        if value is not None and latents not in _BELONGS[name]:
            raise CaptureError(
                f"{name}={value!r} does not belong to latents={latents!r}; it is a setting of "
                f"{' and '.join(_BELONGS[name])}."
            )
    steps = _checked_timesteps(timesteps, schedule)
    if latents == "inversion":
        return Inversion(
            steps, _checked_inversion(20 if inversion_steps is None else inversion_steps, steps, schedule)
        )
    noised = Noising(
        steps,
        checked_whole("draws", 4 if draws is None else draws, least=1, most=1000),
        checked_whole("seed", 0 if seed is None else seed, least=0),
    )
    if latents == "noising":
        return noised
    look = checked_whole("look_timestep", 0 if look_timestep is None else look_timestep, least=0)
    if look >= schedule:
        raise CaptureError(f"look_timestep={look} is not in the schedule, which ends at {schedule - 1}.")
    return Predicted(noised.timesteps, noised.draws, noised.seed, look)


def checked_whole(name: str, value: Any, *, least: int, most: int = 2**64 - 1) -> int:
    """Return a whole number from `least` to `most` (of a seed, what a generator takes) as an int.

    Raises
    ------
    CaptureError
        If the value is not such a number.
    """
    return whole_number(name, value, least=least, most=most, error=CaptureError)


def _checked_timesteps(timesteps: Sequence[int], schedule: int) -> tuple[int, ...]:
    try:
        steps = list(timesteps)
    except TypeError as error:
        raise CaptureError(
            f"timesteps={timesteps!r} is not a sequence; for a single timestep, use (50,)."
        ) from error
    for step in steps:
        if not _is_whole(step) or not 0 <= step < schedule:
            raise CaptureError(
                f"timesteps contains {step!r}; expected whole numbers from 0 (least noise) to {schedule - 1} "
                "(most noise) of the training schedule."
            )
    if not steps or len(set(steps)) < len(steps):
        raise CaptureError(
            f"timesteps={timesteps!r} must contain at least one timestep and no duplicates. For more noise draws, "
            "use draws=."
        )
    return tuple(int(step) for step in steps)


def _checked_inversion(steps: int, timesteps: tuple[int, ...], schedule: int) -> int:
    steps = checked_whole("inversion_steps", steps, least=1)
    if steps > schedule:
        raise CaptureError(f"inversion_steps={steps} is more than the {schedule} timesteps of the schedule.")
    stride = schedule // steps
    missed = [step for step in timesteps if step % stride or step // stride >= steps]
    if missed:
        raise CaptureError(
            f"timesteps contains {missed[0]}, but an inversion in {steps} steps uses every {stride}th timestep "
            f"from 0 to {(steps - 1) * stride}. inversion_steps={fewest_steps(timesteps, schedule)} includes all "
            "given timesteps."
        )
    return steps


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
