"""Settings of the scene composer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.errors import AudioError

Range = tuple[float, float]


@public
@dataclass(frozen=True)
class ComposerConfig:
    """Settings of the scene composer. Values are drawn uniformly from ranges, which include both ends.

    Parameters
    ----------
    events : (int, int)
        Range of the number of sounds per scene, 1 to 10. The sounds have different classes, so their number is
        limited to the number of classes.
    seconds : float
        Length of a scene in seconds: a whole number of 10-ms columns, at least 1 s.
    lengths : (float, float)
        Range of the length of a sound in seconds, at least 0.2. A sound is shorter if its recording is, or if the
        sounds of a sequence would not fit.
    levels : (float, float)
        Range of the level of the loudest 10 ms of a sound, in dB relative to full scale, -60 to 0.
    semitones : (float, float)
        Range of the pitch change, -3 to 3. Pitch is changed by resampling, which also changes the tempo.
    background : (float, float)
        Range of the level of the background noise, in dB relative to full scale, -100 to -20. The colour of the
        noise varies from white to brown.
    sequences : float
        Share of the scenes in which sounds follow each other. In the others, sounds begin anywhere and may
        overlap.
    audible_range : float
        Range in dB below the loudest 10 ms of a sound in which it is audible, with bass-weighted levels; 5 to 80.
        See `attnviz.scenes.audibility` for the rule and the choice of 30.
    audible_floor : float
        Level in dB relative to full scale below which sounds are inaudible, -120 to -40.
    min_gap : float
        Length in seconds below which silences within a sound count as audible, 0 to 1.

    Raises
    ------
    AudioError
        If a value has the wrong type or is out of range, or if the ends of a range are swapped.
    """

    events: tuple[int, int] = (1, 4)
    seconds: float = 10.24
    lengths: Range = (1.0, 5.0)
    levels: Range = (-28.0, -12.0)
    semitones: Range = (-2.0, 2.0)
    background: Range = (-75.0, -45.0)
    sequences: float = 0.5
    audible_range: float = 30.0
    audible_floor: float = -70.0
    min_gap: float = 0.15

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("events", 1, 10),
            ("lengths", 0.2, math.inf),
            ("levels", -60, 0),
            ("semitones", -3, 3),
            ("background", -100, -20),
        ):
            object.__setattr__(self, name, _range(name, getattr(self, name), lowest, highest))
        for name, lowest, highest in (
            ("seconds", 1, 600),
            ("sequences", 0, 1),
            ("audible_range", 5, 80),
            ("audible_floor", -120, -40),
            ("min_gap", 0, 1),
        ):
            object.__setattr__(self, name, _number(name, getattr(self, name), lowest, highest))
        if any(value != int(value) for value in self.events):
            raise AudioError(f"events is {self.events}; expected whole numbers.")
        object.__setattr__(self, "events", (int(self.events[0]), int(self.events[1])))
        if abs(self.frames - self.seconds * MEL.sampling_rate / MEL.hop_length) > 1e-6:
            raise AudioError(f"seconds is {self.seconds:g}; expected a whole number of 10-ms columns.")
        if self.levels[0] <= self.audible_floor:
            raise AudioError(
                f"levels start at {self.levels[0]:g} dB, which is not above the audible_floor of "
                f"{self.audible_floor:g} dB. Such sounds would be inaudible."
            )

    @property
    def frames(self) -> int:
        """Number of spectrogram columns of a scene."""
        return round(self.seconds * MEL.sampling_rate / MEL.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dictionary."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    @public
    def from_dict(cls, values: Mapping[str, Any]) -> ComposerConfig:
        """Create settings from the result of :meth:`to_dict`. Missing fields have their default.

        Raises
        ------
        AudioError
            If a field is unknown or a value is invalid.
        """
        names = [field.name for field in fields(cls)]
        unknown = [str(name) for name in values if name not in names]
        if unknown:
            raise AudioError(f"the composer has no settings {unknown}; it has {names}.")
        return cls(**values)


def _number(name: str, value: object, lowest: float, highest: float) -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise AudioError(f"{name} is {value!r}; expected a number.")
    number = float(value)
    if not lowest <= number <= highest or math.isinf(number):
        raise AudioError(f"{name} is {number:g}; expected a value from {lowest:g} to {highest:g}.")
    return number


def _range(name: str, value: object, lowest: float, highest: float) -> Range:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise AudioError(f"{name} is {value!r}; expected two numbers, the lowest and the highest.")
    low, high = (_number(name, end, lowest, highest) for end in value)
    if low > high:
        raise AudioError(f"{name} is {value!r}; the lowest must come first.")
    return low, high
