"""Verdicts of many comparisons at once: intervals of paired differences, and how often chance is let through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control

BETTER, WORSE, NEITHER, TOO_FEW = "better", "worse", "no difference shown", "too few sources to tell"

FEWEST_SOURCES = 6
"""For a verdict: that fewer sources, or clips, all differ the same way is too likely by chance (five: 1 in 16)."""

DISCOVERY_RATE = 0.05
"""Expected share of verdicts "better" and "worse" that are chance, over all comparisons made together."""

_DECIMALS = 12  # a difference that is 0 but for rounding is 0


def p_values(replicates: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of each column of bootstrapped differences.

    Parameters
    ----------
    replicates : numpy.ndarray, shape (n_resamples, columns)
        NaN where a resample defines nothing.

    Returns
    -------
    numpy.ndarray, shape (columns,)
        Twice the share of resamples on the rarer side of 0, one added to both counts (Davison and Hinkley,
        Bootstrap Methods and their Application, 1997): at least ``2 / (n_resamples + 1)``. NaN without resamples.
    """
    rounded = np.round(replicates, _DECIMALS)
    number = (~np.isnan(rounded)).sum(axis=0)
    rarer = np.minimum((rounded <= 0).sum(axis=0), (rounded >= 0).sum(axis=0))
    values = np.minimum(2 * (rarer + 1) / (number + 1), 1.0)
    return np.where(number > 0, values, np.nan)


def adjusted(values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted by Benjamini and Hochberg over all that are known; NaN stays NaN."""
    found = np.array(values, dtype=np.float64)
    known = ~np.isnan(found)
    if known.any():
        found[known] = false_discovery_control(found[known])
    return found


def verdicts(
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
    p_adjusted: np.ndarray,
    clusters: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """Say of each difference, above 0 being better, what it shows.

    "better" or "worse" only where the 95 % interval excludes 0, the adjusted p-value is at most `DISCOVERY_RATE`,
    and there are `FEWEST_SOURCES` clusters or more. Empty where there is no interval.
    """
    low, high = (np.round(np.asarray(ends, dtype=np.float64), _DECIMALS) for ends in (low, high))
    shown = np.asarray(p_adjusted) <= DISCOVERY_RATE
    cases = [
        np.isnan(low) | np.isnan(high),
        np.asarray(clusters) < FEWEST_SOURCES,
        shown & (low > 0),
        shown & (high < 0),
    ]
    return np.select(cases, ["", TOO_FEW, BETTER, WORSE], NEITHER)
