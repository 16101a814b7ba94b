"""Verdicts of many comparisons at once: intervals of paired differences, and how often chance is let through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control
from scipy.stats import t as student

BETTER, WORSE, NEITHER, TOO_FEW = "better", "worse", "no difference shown", "too few sources to tell"

FEWEST_SOURCES = 6
"""For a verdict: that fewer sources, or clips, all differ the same way is too likely by chance (five: 1 in 16)."""

DISCOVERY_RATE = 0.05
"""Expected share of verdicts "better" and "worse" that are chance, over all comparisons made together."""

_DECIMALS = 12  # a difference that is 0 but for rounding is 0


def p_values(values: np.ndarray, replicates: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of each difference.

    Parameters
    ----------
    values : numpy.ndarray, shape (columns,)
        The differences.
    replicates : numpy.ndarray, shape (n_resamples, columns)
        Bootstrapped; NaN where a resample defines nothing.
    clusters : numpy.ndarray of int, shape (columns,)
        Units that were drawn.

    Returns
    -------
    numpy.ndarray, shape (columns,)
        Of the difference over its bootstrap standard error, by Student's t of one degree of freedom less than
        there are clusters. Counting resamples beyond 0 could not tell one p-value below ``2 / n_resamples`` from
        another, and many comparisons need them. NaN below two clusters or without resamples.
    """
    rounded = np.round(replicates, _DECIMALS)
    known = (~np.isnan(rounded)).sum(axis=0) > 1
    found = np.full(len(values), np.nan)
    for column in np.flatnonzero(known & (np.asarray(clusters) > 1)):
        drawn, value = rounded[:, column], abs(round(float(values[column]), _DECIMALS))
        if np.nanmax(drawn) > np.nanmin(drawn):  # the deviation of equal values is not exactly 0 in floating point
            found[column] = 2 * student.sf(value / np.nanstd(drawn, ddof=1), clusters[column] - 1)
        else:
            found[column] = float(value == 0)
    return found


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
