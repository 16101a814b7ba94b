"""The result of a metric, and bootstrap intervals that do not shift with its bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from attnviz.alignment.bootstrap import CONFIDENCE, MOST_RESAMPLES, Bootstrap
from attnviz.arguments import whole_number
from attnviz.errors import EvaluationError, FewClipsWarning, warn
from attnviz.wording import counted, short_repr

ALLOW_FEW = "allow_few=True computes it with a warning."
_REFERENCE_SEED = 2**31  # added to a seed: both sets are drawn independently


@dataclass(frozen=True, eq=False)
class Estimate:
    """Value of a metric with its interval and the numbers of clips.

    Attributes
    ----------
    value : float
    low, high : float
        95 % bootstrap interval of the value at this number of clips. NaN if it was not computed.
    n : int
        Number of evaluated clips.
    n_reference : int
        Number of reference clips; 0 for a metric without reference.
    needed : int
        Smallest number of clips, of each set, that the metric or its interval needs.
    better : {"lower", "higher"}
        Which values are better.
    per_clip : numpy.ndarray or None
        ``(n,)``: the value of each clip, where the metric is a mean over clips.
    details : dict
        Settings that the value depends on, such as the bandwidth of a kernel.
    """

    value: float
    low: float
    high: float
    n: int
    n_reference: int
    needed: int
    better: Literal["lower", "higher"]
    per_clip: np.ndarray | None = None
    details: dict[str, Any] = field(default_factory=dict)

    __repr__ = short_repr

    def __float__(self) -> float:
        return self.value


def draws(units: np.ndarray, n_resamples: int, seed: int, *, reference: bool = False) -> Iterator[np.ndarray]:
    """Yield how often each clip is drawn, ``(resamples, clips)``, in batches that depend on the sizes only.

    Nothing is drawn from a single unit.

    Parameters
    ----------
    units : numpy.ndarray of int, shape (clips,)
        Unit of each clip, from 0. All clips of a unit are drawn together.
    n_resamples, seed : int
    reference : bool
        Whether to draw independently of the same seed's draws for the evaluated clips.
    """
    if len(np.unique(units)) < 2:  # every resample would be the clips themselves
        return
    bootstrap = Bootstrap(units, n_resamples, seed + _REFERENCE_SEED * reference)
    for batch in bootstrap.weights():
        yield batch[:, units]


def paired_draws(
    evaluated: np.ndarray, reference: np.ndarray, n_resamples: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield how often each clip of two independent sets is drawn, one resample at a time."""
    first = (row for batch in draws(evaluated, n_resamples, seed) for row in batch)
    second = (row for batch in draws(reference, n_resamples, seed, reference=True) for row in batch)
    yield from zip(first, second, strict=False)  # of a single unit there are none


def interval(
    value: float, replicates: np.ndarray, *, lowest: float = -np.inf, highest: float = np.inf
) -> tuple[float, float]:
    """Return the 95 % interval of a value from its bootstrap replicates.

    Parameters
    ----------
    value : float
    replicates : numpy.ndarray, shape (n_resamples,)
    lowest, highest : float
        Limits of what the metric can be.

    Notes
    -----
    A resample of N clips has the bias of N clips once more: the Frechet distance of resamples is larger than that
    of the clips, and the percentile interval may not contain the value. The replicates are therefore moved so that
    their mean is the value. The interval is of the metric at this number of clips, bias included. On Gaussian sets
    of 30 to 100 clips it holds the metric's expected value in 92 to 96 % of repetitions; for a kernel distance of
    sets from one distribution, in 99 %.
    """
    if len(replicates) < 2:
        return float("nan"), float("nan")
    share = (1 - CONFIDENCE) / 2
    low, high = value + np.quantile(replicates, [share, 1 - share]) - replicates.mean()
    return float(np.clip(low, lowest, highest)), float(np.clip(high, lowest, highest))


def mean_estimate(
    values: np.ndarray,
    units: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
    n_reference: int,
    better: Literal["lower", "higher"],
    lowest: float,
    highest: float,
    details: dict[str, Any],
) -> Estimate:
    """Return the mean over clips with its bootstrap interval."""
    value = float(values.mean())
    means = [(batch @ values) / batch.sum(axis=1) for batch in draws(units, n_resamples, seed)]
    low, high = _bounds(value, means, units, lowest, highest)
    return Estimate(value, low, high, len(values), n_reference, 2, better, values, details)


def checked_resamples(n_resamples: int, seed: int) -> tuple[int, int]:
    """Return both as int, or raise `EvaluationError`; 0 resamples give no interval."""
    return (
        whole_number("n_resamples", n_resamples, least=0, most=MOST_RESAMPLES, error=EvaluationError),
        whole_number("seed", seed, least=0, most=_REFERENCE_SEED - 1, error=EvaluationError),
    )


def check_enough(
    metric: str, clips: tuple[int, int], needed: tuple[int, int], *, why: str, allow_few: bool
) -> None:
    """Raise, or warn where few clips are allowed, if a set has fewer clips than a metric needs.

    Parameters
    ----------
    metric : str
    clips, needed : (int, int)
        Numbers of evaluated and of reference clips that there are, and that are needed.
    why : str
        Where the numbers needed come from.
    allow_few : bool
    """
    if all(there >= least for there, least in zip(clips, needed, strict=True)):
        return
    message = (
        f"{metric} needs at least {needed[0]} evaluated and {counted(needed[1], 'reference clip')}, {why}; "
        f"there are {clips[0]} evaluated and {counted(clips[1], 'reference clip')}."
    )
    if not allow_few:
        raise EvaluationError(
            f"{message} Add clips, or use the kernel distance (KAD), which is unbiased at any number of clips. "
            f"{ALLOW_FEW}"
        )
    warn(
        f"{message} The value is biased; do not compare it with those of other numbers of clips.", FewClipsWarning
    )


def _bounds(
    value: float, batches: list[np.ndarray], units: np.ndarray, lowest: float, highest: float
) -> tuple[float, float]:
    return interval(value, np.concatenate(batches or [np.zeros(0)]), lowest=lowest, highest=highest)
