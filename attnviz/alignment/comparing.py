"""Verdicts on several comparisons, from intervals of paired differences and the false discovery rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control
from scipy.stats import t as student

BETTER, WORSE, NEITHER, TOO_FEW = "better", "worse", "no difference shown", "too few sources to tell"

FEWEST_SOURCES = 6
"""Minimum number of sources and clips for a verdict (five differ in the same direction by chance in 1 of 16)."""

DISCOVERY_RATE = 0.05
"""Expected fraction of false verdicts "better" and "worse" over all comparisons made together."""

_DECIMALS = 12  # treat differences that are 0 up to rounding as 0


def p_values(values: np.ndarray, replicates: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Compute the two-sided p-value of each difference.

    Parameters
    ----------
    values : numpy.ndarray, shape (columns,)
        The differences.
    replicates : numpy.ndarray, shape (n_resamples, columns)
        Bootstrap replicates; NaN if undefined for a resample.
    clusters : numpy.ndarray of int, shape (columns,)
        Number of resampled units.

    Returns
    -------
    numpy.ndarray, shape (columns,)
        p-value of the difference divided by its bootstrap standard error, from Student's t distribution with one
        degree of freedom less than the number of clusters. Counting resamples beyond 0 has a resolution of only
        ``2 / n_resamples``, which is too coarse for many comparisons. NaN with fewer than two clusters or without
        resamples.
    """
    rounded = np.round(replicates, _DECIMALS)
    known = (~np.isnan(rounded)).sum(axis=0) > 1
    found = np.full(len(values), np.nan)
    for column in np.flatnonzero(known & (np.asarray(clusters) > 1)):
        drawn, value = rounded[:, column], abs(round(float(values[column]), _DECIMALS))
        if np.nanmax(drawn) > np.nanmin(drawn):  # the deviation of equal values may differ from 0 by rounding
            found[column] = 2 * student.sf(value / np.nanstd(drawn, ddof=1), clusters[column] - 1)
        else:
            found[column] = float(value == 0)
    return found


def adjusted(values: np.ndarray) -> np.ndarray:
    """Adjust p-values by the Benjamini-Hochberg procedure, ignoring NaN."""
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
    """Return the verdict on each difference; positive differences are better.

    "better" or "worse" if the 95 % interval excludes 0, the adjusted p-value is at most `DISCOVERY_RATE`, and
    there are at least `FEWEST_SOURCES` clusters. Empty if there is no interval.
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
