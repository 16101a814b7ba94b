"""Settings that a checkpoint recommends, in a file of its folder; the authors' values where it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from attnviz.errors import AttnVizError, CheckpointError
from attnviz.io.json_files import as_json, read_json
from attnviz.models.pipelines import inputs

FILE_NAME = "recommended_settings.json"

Origin = Literal["given", "checkpoint", "authors"]

_SAMPLING = ("num_inference_steps", "guidance_scale", "guidance_interval")
_PROMPT_EDIT = (*_SAMPLING, "cross_replace_steps", "self_replace_steps", "blend_threshold", "blend_start")
_CLIP_EDIT = (*_SAMPLING, "strength")
_INPAINTING = (*_CLIP_EDIT, "context", "normalize")

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "generation": _SAMPLING,
        "swap": _PROMPT_EDIT,
        "refine": _PROMPT_EDIT,
        "reweight": _PROMPT_EDIT,
        "invert": ("num_inference_steps",),
        "inpaint": _INPAINTING,
        "style": _CLIP_EDIT,
    }
)
"""What can be recommended, for generation and for each kind of edit; an edit inherits from generation."""

_PROMPT_TO_PROMPT = {
    "num_inference_steps": 50,
    "cross_replace_steps": 0.8,
    "self_replace_steps": 0.4,
    "blend_threshold": None,
    "blend_start": 0.2,
}

AUTHORS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "generation": {"num_inference_steps": 100, "guidance_scale": 7.5, "guidance_interval": (0.0, 1.0)},
        "swap": _PROMPT_TO_PROMPT,
        "refine": _PROMPT_TO_PROMPT,
        "reweight": _PROMPT_TO_PROMPT,
        "invert": {"num_inference_steps": 50},
        "inpaint": {"strength": 1.0, "context": math.inf, "normalize": True},
        "style": {"strength": 0.8},
    }
)
"""Values of Auffusion (arXiv 2401.01044), and for edits of prompts of prompt-to-prompt (arXiv 2208.01626)."""


@dataclass(frozen=True)
class RecommendedSettings:
    """Settings that a checkpoint recommends.

    Attributes
    ----------
    of : mapping of str to mapping
        Recommended values by purpose (``"generation"``, or a kind of edit) and name; see `NAMES`. Empty for a
        checkpoint without ``recommended_settings.json``, as the published ones are.

    Raises
    ------
    AttnVizError
        If a purpose or name is unknown, or a value is out of range.
    """

    of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = {}
        for purpose, values in _object("settings", self.of, NAMES).items():
            known = _object(purpose, values, NAMES[purpose])
            checked[purpose] = {name: _CHECKS[name](f"{purpose}.{name}", value) for name, value in known.items()}
        object.__setattr__(self, "of", checked)

    def value(self, name: str, purpose: str = "generation") -> Any:
        """Return a recommended setting, or the authors' value of it.

        Parameters
        ----------
        name : str
            Setting, among ``NAMES[purpose]``.
        purpose : str
            ``"generation"``, or a kind of edit. What is not recommended for an edit is that of generation.
        """
        return self._found(name, purpose)[0]

    def origin(self, name: str, purpose: str = "generation") -> Origin:
        """Say whose value `value` returns: the checkpoint's, or the authors'."""
        return self._found(name, purpose)[1]

    def settle(self, given: Mapping[str, Any], purpose: str = "generation") -> dict[str, Any]:
        """Return settings with each one that is None replaced by its recommended value."""
        return {name: self.value(name, purpose) if value is None else value for name, value in given.items()}

    def origins(self, given: Mapping[str, Any], purpose: str = "generation") -> dict[str, Origin]:
        """Say where each of some settings comes from once they are settled."""
        return {name: self.origin(name, purpose) if value is None else "given" for name, value in given.items()}

    def _found(self, name: str, purpose: str) -> tuple[Any, Origin]:
        sources: tuple[tuple[Mapping[str, Mapping[str, Any]], Origin], ...] = (
            (self.of, "checkpoint"),
            (AUTHORS, "authors"),
        )
        for values, origin in sources:
            for place in (purpose, "generation"):
                if name in values.get(place, {}):
                    return values[place][name], origin
        raise AttnVizError(f"There is no setting {name!r} of {purpose}; there are: {', '.join(NAMES[purpose])}.")


def read_recommended(folder: Path) -> RecommendedSettings:
    """Read ``recommended_settings.json`` of a checkpoint; without the file, nothing is recommended.

    Raises
    ------
    CheckpointError
        The file is damaged, names an unknown setting, or a value is out of range.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return RecommendedSettings()
    content = read_json(path, error=CheckpointError)
    try:
        return RecommendedSettings(content)
    except AttnVizError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def write_recommended(settings: RecommendedSettings, folder: Path) -> None:
    """Write ``recommended_settings.json`` where anything is recommended."""
    if settings.of:
        (folder / FILE_NAME).write_bytes(as_json(settings.of, FILE_NAME))


def check_interval(name: str, value: Any) -> tuple[float, float]:
    """Raise unless an interval lies within the noise schedule.

    Raises
    ------
    AttnVizError
        Naming it and the range.
    """
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not all(map(_is_real, pair)) or not 0 <= pair[0] < pair[1] <= 1:
        raise AttnVizError(
            f"{name}={value!r} is not a part of the noise schedule: two fractions of its timesteps, lower first, "
            "in [0, 1]; (0, 1) is all of it. Was it given in timesteps?"
        )
    return float(pair[0]), float(pair[1])


def _steps(name: str, value: Any) -> int:
    return inputs.check_count(name, value, most=1000)


def _number(low: float, high: float, *, without_high: bool = False) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        if not _is_real(value) or not low <= value <= high or (without_high and value == high):
            raise AttnVizError(f"{name}={value!r} is not in [{low:g}, {high:g}{')' if without_high else ']'}.")
        return float(value)

    return check


def _threshold(name: str, value: Any) -> float | None:
    return None if value is None else _number(0, 1, without_high=True)(name, value)


def _strength(name: str, value: Any) -> float:
    if value == 0:
        raise AttnVizError(f"{name}=0 leaves no step to run.")
    return _number(0, 1)(name, value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "num_inference_steps": _steps,
    "guidance_scale": _number(0, 100),
    "guidance_interval": check_interval,
    "cross_replace_steps": _number(0, 1),
    "self_replace_steps": _number(0, 1),
    "blend_threshold": _threshold,
    "blend_start": _number(0, 1),
    "strength": _strength,
    "context": _number(0, math.inf),
    "normalize": inputs.check_switch,
}


def _object(what: str, value: Any, names: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AttnVizError(f"{what} is {type(value).__name__}, not an object of {', '.join(names)}.")
    if unknown := sorted(str(name) for name in value if name not in names):
        raise AttnVizError(f"{what} has {', '.join(unknown)}, which is unknown; there are: {', '.join(names)}.")
    return value


def _is_real(value: Any) -> bool:
    if isinstance(value, int):  # which may be beyond floating point
        return not isinstance(value, bool)
    return isinstance(value, Real) and math.isfinite(value)
