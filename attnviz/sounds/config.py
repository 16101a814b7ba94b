"""What the composer may vary, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from attnviz.audio import MEL
from attnviz.errors import AudioError

Range = tuple[float, float]


@dataclass(frozen=True)
class ComposerConfig:
    """How scenes are composed. Ranges are drawn from evenly, both ends included.

    Parameters
    ----------
    events : (int, int)
        Sounds of a scene, all of different classes; 1 to 10, and never more than there are classes.
    seconds : float
        Length of a scene; a whole number of 10-ms columns, at least 1 s.
    lengths : (float, float)
        Seconds of a recording that are used, at least 0.2; less where it is shorter, or where sounds one
        after another would not fit otherwise.
    levels : (float, float)
        Level of a sound's loudest 10 ms, in dB relative to full scale, -60 to 0.
    semitones : (float, float)
        Change of pitch by resampling (which changes the tempo, too), -3 to 3.
    background : (float, float)
        Level of the background noise, in dB relative to full scale, -100 to -20. The noise is white at one
        end, brown at the other.
    sequences : float
        Share of the scenes in which sounds come one after another; in the others each begins anywhere, and
        they may overlap.
    audible_range : float
        A sound is audible within this many dB of its own loudest 10 ms, as the ear weighs the bass; 5 to 80.
        See `attnviz.sounds.audibility` for the whole rule and the reason for 30.
    audible_floor : float
        Level in dB below which nothing is audible, -120 to -40.
    min_gap : float
        Seconds; shorter silences inside a sound count as audible. 0 to 1.

    Raises
    ------
    AudioError
        A value of another kind, out of its range, or a range whose ends are swapped.
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
            raise AudioError(f"events is {self.events}; whole numbers are needed.")
        object.__setattr__(self, "events", (int(self.events[0]), int(self.events[1])))
        if abs(self.frames - self.seconds * MEL.sample_rate / MEL.hop_length) > 1e-6:
            raise AudioError(f"seconds is {self.seconds:g}; a whole number of 10-ms columns is needed.")
        if self.levels[0] <= self.audible_floor:
            raise AudioError(
                f"levels go down to {self.levels[0]:g} dB, and nothing below the audible_floor of "
                f"{self.audible_floor:g} dB is audible: such a sound would never be heard."
            )

    @property
    def frames(self) -> int:
        """Columns of the spectrogram of a scene."""
        return round(self.seconds * MEL.sample_rate / MEL.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ComposerConfig:
        """Return the settings that :meth:`to_dict` gave; left out ones have their default.

        Raises
        ------
        AudioError
            An unknown field, or a value that is not allowed.
        """
        names = [field.name for field in fields(cls)]
        unknown = [str(name) for name in values if name not in names]
        if unknown:
            raise AudioError(f"the composer has no settings {unknown}; it has {names}.")
        return cls(**values)


def _number(name: str, value: object, lowest: float, highest: float) -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise AudioError(f"{name} is {value!r}; a number is needed.")
    number = float(value)
    if not lowest <= number <= highest or math.isinf(number):
        raise AudioError(f"{name} is {number:g}; {lowest:g} to {highest:g} is allowed.")
    return number


def _range(name: str, value: object, lowest: float, highest: float) -> Range:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise AudioError(f"{name} is {value!r}; two numbers, the lowest and the highest, are needed.")
    low, high = (_number(name, end, lowest, highest) for end in value)
    if low > high:
        raise AudioError(f"{name} is {value!r}; the lowest must come first.")
    return low, high
