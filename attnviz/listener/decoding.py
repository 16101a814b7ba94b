"""Decode frame probabilities into sound events."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from attnviz.arguments import public
from attnviz.errors import CheckpointError, EventsError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_or_nothing

DECODING_NAME = "decoding.json"
_LONGEST = 60.0  # seconds; upper limit of the filter width and the minimum event length


@public
@dataclass(frozen=True)
class Decoding:
    """Settings that decode probabilities into events.

    Parameters
    ----------
    threshold : float or mapping of str to float
        Threshold in (0, 1] that the probability of an event must reach: one for all classes, or one per class.
    low_share : float
        Fraction of the threshold, in (0, 1], for hysteresis: an event extends as long as the probability is at
        least this fraction of the threshold. 1 disables hysteresis.
    median_seconds : float
        Width of the median filter of the probabilities in seconds, rounded to an odd number of frames. 0 disables
        the filter.
    min_seconds : float
        Minimum length of an event in seconds. Shorter events are dropped.

    Raises
    ------
    EventsError
        If a value is not a number or is out of range.
    """

    threshold: float | Mapping[str, float] = 0.5
    low_share: float = 0.6
    median_seconds: float = 0.12
    min_seconds: float = 0.08

    def __post_init__(self) -> None:
        given = self.threshold
        threshold = (
            {
                str(name): _number(f"the threshold of {name!r}", value, above=0, most=1)
                for name, value in given.items()
            }
            if isinstance(given, Mapping)
            else _number("threshold", given, above=0, most=1)
        )
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "low_share", _number("low_share", self.low_share, above=0, most=1))
        for name in ("median_seconds", "min_seconds"):
            value = getattr(self, name)
            object.__setattr__(self, name, 0.0 if value == 0 else _number(name, value, above=0, most=_LONGEST))

    @public
    def thresholds(self, classes: Sequence[str]) -> np.ndarray:
        """Return the threshold of each class, ``(classes,)`` float64.

        Raises
        ------
        EventsError
            If a class has no threshold.
        """
        if not isinstance(self.threshold, Mapping):
            return np.full(len(classes), float(self.threshold))
        missing = [name for name in classes if name not in self.threshold]
        if missing:
            raise EventsError(f"{missing} have no threshold; there are thresholds for {sorted(self.threshold)}.")
        return np.array([self.threshold[name] for name in classes], dtype=np.float64)

    @public
    def smooth(self, probabilities: np.ndarray, frame_seconds: float) -> np.ndarray:
        """Return probabilities after the median filter.

        Parameters
        ----------
        probabilities : numpy.ndarray
            ``(..., frames)`` in [0, 1]. Values outside the clip are taken as 0, so that short events are
            suppressed at the ends of the clip as well.
        frame_seconds : float
            Length of a frame in seconds.

        Returns
        -------
        numpy.ndarray
            Filtered probabilities of the same shape.

        Raises
        ------
        EventsError
            If `frame_seconds` is not above 0.
        """
        frame_seconds = _number("frame_seconds", frame_seconds, above=0, most=math.inf)
        width = 2 * round((self.median_seconds / frame_seconds - 1) / 2) + 1
        if width <= 1:
            return probabilities
        size = (1,) * (probabilities.ndim - 1) + (width,)
        return median_filter(probabilities, size=size, mode="constant", cval=0.0)

    @public
    def intervals(
        self, probabilities: np.ndarray, classes: Sequence[str], frame_seconds: float
    ) -> list[list[tuple[int, int]]]:
        """Return the events of each class, in frames.

        Parameters
        ----------
        probabilities : numpy.ndarray
            ``(classes, frames)`` in [0, 1].
        classes : sequence of str
            Class names, in the order of the rows.
        frame_seconds : float
            Length of a frame in seconds.

        Returns
        -------
        list of list of (int, int)
            For each class, the first frame of each event and the frame after its last, in order of time and not
            adjacent.

        Raises
        ------
        EventsError
            If a class has no threshold, `frame_seconds` is not above 0, or `probabilities` has not a row a class.

        Examples
        --------
        >>> heard = np.array([[0.1, 0.4, 0.9, 0.4, 0.1, 0.4, 0.4, 0.1]])
        >>> Decoding(0.5, low_share=0.6, median_seconds=0, min_seconds=0).intervals(heard, ["dog"], 0.04)
        [[(1, 4)]]
        """
        values = np.asarray(probabilities, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(classes):
            raise EventsError(
                f"probabilities has the shape {values.shape}; {len(classes)} rows are needed, one a class."
            )
        smoothed = self.smooth(values, frame_seconds)
        shortest = math.ceil(round(self.min_seconds / frame_seconds, 6))
        thresholds = self.thresholds(classes)
        return [
            [
                (first, last)
                for first, last in _runs(row >= self.low_share * threshold)
                if last - first >= shortest and row[first:last].max() >= threshold
            ]
            for row, threshold in zip(smoothed, thresholds, strict=True)
        ]

    @public
    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``decoding.json`` into the folder of a listener.

        Raises
        ------
        OutputError
            If the file exists and `overwrite` is False, or it cannot be written.
        """
        with whole_or_nothing(Path(folder) / DECODING_NAME, overwrite=overwrite) as partial:
            partial.write_bytes(as_json(asdict(self), DECODING_NAME))

    @classmethod
    @public
    def load(cls, folder: str | os.PathLike[str]) -> Decoding:
        """Read ``decoding.json`` from the folder of a listener, or return the defaults if there is none.

        Raises
        ------
        CheckpointError
            If the file is damaged, or no folder can be called so.
        """
        path = checked_path(folder, "folder", CheckpointError) / DECODING_NAME
        names = [item.name for item in fields(cls)]
        if not path.exists():
            return cls()
        values = read_json(path, error=CheckpointError)
        try:
            if not isinstance(values, dict) or set(values) - set(names):
                raise CheckpointError(f"{path} is not a decoding file; it may contain {names} only.")
            return cls(**values)
        except (ValueError, EventsError) as error:
            raise CheckpointError(f"{path} cannot be used: {error}") from error


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    change = np.diff(active.astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist()
    return list(zip(starts, ends, strict=True))


def _number(name: str, value: object, *, above: float, most: float) -> float:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not above < number <= most:
        raise EventsError(f"{name} is {value!r}; expected a number above {above:g} and at most {most:g}.")
    return number
