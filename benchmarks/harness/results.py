"""Targets, estimates with intervals, and figures of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REACHED, MISSED, REPORTED, NOT_MEASURED = "reached", "missed", "reported", "not measured"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Bar:
    """A target with its measured value; ``state`` is "reached", "missed", "reported" or "not measured"."""

    what: str
    wanted: str
    measured: str
    state: str

    @classmethod
    def of(cls, what: str, wanted: str, measured: object = None, reached: object = False) -> Bar:
        """Judge a measured value.

        Parameters
        ----------
        what : str
        wanted : str
            The target in words. Empty if the value is only reported.
        measured : object
            Value and interval as text. None if it was not measured.
        reached : object
            Whether the target is reached.
        """
        if measured is None:
            return cls(what, wanted, "", NOT_MEASURED)
        state = REPORTED if not wanted else REACHED if bool(reached) else MISSED
        return cls(what, wanted or REPORTED, str(measured), state)


def bar_lines(bars: Sequence[Bar]) -> list[str]:
    """Return the targets as a Markdown table."""
    lines = ["| what | bar | measured | |", "|---|---|---|---|"]
    return lines + [f"| {bar.what} | {bar.wanted} | {bar.measured} | **{bar.state}** |" for bar in bars]


@dataclass(frozen=True)
class Estimate:
    """A mean or median over independent cases, its 95 % bootstrap interval, and the number of cases."""

    value: float
    low: float
    high: float
    cases: int = 0

    @classmethod
    def mean(cls, values: Any, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
        """Estimate the mean of one value per case, ignoring undefined values."""
        known = _known(values)
        if not len(known):
            return cls(np.nan, np.nan, np.nan, 0)
        from attnviz.alignment.bootstrap import Bootstrap, interval

        replicates = Bootstrap(np.arange(len(known)), resamples, seed).means(known[:, None])
        low, high = interval(replicates, np.array([len(known)]))
        return cls(float(known.mean()), float(low[0]), float(high[0]), len(known))

    @classmethod
    def median(cls, values: Any, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
        """Estimate the median, as for times, of which single ones are far too long."""
        known = _known(values)
        draws = np.random.default_rng(seed).integers(0, len(known), (resamples, len(known)))
        low, high = np.quantile(np.median(known[draws], axis=1), [0.025, 0.975])
        return cls(float(np.median(known)), float(low), float(high), len(known))

    def text(self, form: str) -> str:
        """Return value and interval, each in a format such as ``.1f``."""
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"

    def __str__(self) -> str:
        return f"{self.text('.3g')} ({self.cases})"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, and free its memory."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)


def _known(values: Any) -> np.ndarray:
    known = np.asarray(values, dtype=float)
    return known[~np.isnan(known)]
