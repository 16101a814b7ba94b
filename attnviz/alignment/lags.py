"""`layer_lags`: measure the time lag between maps and sounds in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import MOST_RESAMPLES, Bootstrap, interval, known_means
from attnviz.alignment.correlation import product, standardized
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.reading import MAP
from attnviz.alignment.result import Alignment
from attnviz.arguments import public, whole_number
from attnviz.errors import MapsError

_LONGEST_LAG = 60.0  # seconds
_STEPS_A_COLUMN = 16  # shifts per column; the peak is interpolated by a parabola
COLUMNS = ("readout", "column_ms", "lag_ms", "low", "high", "correlation", "correlation_at_0", "peaked",
           "phrases", "sources")  # fmt: skip


@public
def layer_lags(
    results: Iterable[Alignment], *, max_lag: float = 1.0, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Measure the time lag of layers: the shift of the activity that maximises its correlation with the curves.

    Strided convolutions may shift the centre of a level by a fraction of a column. Lags far below the column width
    can be measured, because the *activity*, which is known exactly, is shifted instead of the curve, and because
    the correlation is averaged over many phrases with onsets at arbitrary positions within a column.

    Parameters
    ----------
    results : iterable of Alignment
        One result per readout: for each layer ``Alignment.concat(align(m, e, readout=layer) for m, e in clips)``.
        The events must be exact, as for composed scenes; manual annotations are only accurate to about 0.1 s.
    max_lag : float
        Maximum shift in either direction, in seconds.
    n_resamples : int
        Number of bootstrap resamples of source recordings (or of clips, for events without a source).
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row per readout: ``readout``, ``column_ms``, ``lag_ms`` (positive if the map is later than the sound),
        ``low`` and ``high`` (95 % interval over the resamples with a peak), ``correlation`` and
        ``correlation_at_0`` (mean Pearson correlation over phrases at the lag and without a shift), ``peaked``
        (fraction of resamples with a peak), ``phrases``, ``sources``. If the maximum correlation is not positive
        or is at the largest shift, there is no peak, and the lag is NaN. Lags with low correlation are unreliable.

    Raises
    ------
    MapsError
        If `max_lag` is not above 0 and at most 60, `n_resamples` is not a whole number from 1 to 100 000, or a
        result has maps of different column widths.

    Notes
    -----
    The correlations of each curve with its activity, shifted in steps of 1/16 column, are averaged over phrases.
    The peak is interpolated by a parabola through the maximum and its neighbours. There is no sound outside the
    clip. A map that is blurred symmetrically has no lag.

    Examples
    --------
    ``layer_lags(Alignment.concat(align(m, e, readout=layer) for m, e in clips) for layer in clips[0][0].layers)``
    """
    if not (isinstance(max_lag, int | float) and 0 < max_lag <= _LONGEST_LAG):
        raise MapsError(f"max_lag is {max_lag!r}; it must be above 0 and at most {_LONGEST_LAG:g} seconds.")
    n_resamples = whole_number("n_resamples", n_resamples, most=MOST_RESAMPLES, error=MapsError)
    rows = [_row(result, float(max_lag), int(n_resamples), seed) for result in results]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def shifted_shares(times: np.ndarray, shifts: np.ndarray, columns: int, column_seconds: float) -> np.ndarray:
    """Return the fraction of each column that shifted events cover.

    Parameters
    ----------
    times : numpy.ndarray, shape (events, 2)
        Onsets and offsets in seconds, ascending and disjoint.
    shifts : numpy.ndarray, shape (shifts,)
        Shifts in seconds.
    columns : int
        Number of columns, from 0 s.
    column_seconds : float

    Returns
    -------
    numpy.ndarray, float64, shape (shifts, columns)
        In [0, 1].
    """
    knots = times.ravel()
    lengths = times[:, 1] - times[:, 0]
    before = np.concatenate([[0.0], np.cumsum(lengths)])
    covered = np.column_stack([before[:-1], before[1:]]).ravel()  # seconds of sound before each onset and offset
    edges = np.arange(columns + 1) * column_seconds
    until = np.interp(edges[None] - shifts[:, None], knots, covered)
    return np.clip(np.round(np.diff(until, axis=1) / column_seconds, 12), 0.0, 1.0)


def _row(result: Alignment, max_lag: float, n_resamples: int, seed: int) -> dict[str, object]:
    row: dict[str, object] = {"readout": result.readout, "phrases": 0, "sources": 0}
    phrases = [phrase for phrase in result.phrases if not phrase.undefined]
    if not phrases:
        return row
    widths = sorted({round(phrase.column_seconds, 9) for phrase in phrases})
    if len(widths) > 1:
        named = ", ".join(f"{1e3 * width:g}" for width in widths)
        raise MapsError(
            f"The phrases of the readout {result.readout!r} have columns of {named} ms; a lag needs a single "
            "column width. Were maps of several models pooled?"
        )
    step = widths[0] / _STEPS_A_COLUMN
    reach = max(1, round(max_lag / step))
    shifts = np.arange(-reach, reach + 1) * step
    correlations = np.stack([_correlations(phrase, shifts) for phrase in phrases])
    scored = np.array([not phrase.undefined for phrase in result.phrases])
    units, clips = (np.unique(of[scored], return_inverse=True)[1] for of in (result._units, result._clips))
    bootstrap = Bootstrap(units, n_resamples, seed, clips)
    pooled = known_means(correlations)[None]
    lag, height = peaks(pooled, shifts)
    lags, _ = peaks(bootstrap.means(correlations), shifts)
    low, high = interval(1e3 * lags[:, None], bootstrap.clusters(np.zeros((len(phrases), 1))))
    return row | {
        "column_ms": 1e3 * widths[0],
        "lag_ms": 1e3 * float(lag[0]),
        "low": float(low[0]),
        "high": float(high[0]),
        "correlation": float(height[0]),
        "correlation_at_0": float(pooled[0, reach]),
        "peaked": float(np.mean(~np.isnan(lags))),
        "phrases": len(phrases),
        "sources": len(np.unique(units)),
    }


def _correlations(phrase: AlignedPhrase, shifts: np.ndarray) -> np.ndarray:
    """Return the correlation of a phrase's curve with its activity at each shift; NaN if one is constant."""
    curve = standardized(phrase.curves[MAP][0][None].astype(np.float64))
    shares = shifted_shares(phrase.events.times, shifts, len(phrase.share), phrase.column_seconds)
    return product(np.broadcast_to(curve, shares.shape), standardized(shares))


def peaks(rows: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the interpolated position and height of the maximum of each row; NaN if there is no peak.

    Parameters
    ----------
    rows : numpy.ndarray, shape (rows, shifts)
        NaN values are ignored.
    shifts : numpy.ndarray, shape (shifts,)
        Evenly spaced shifts.
    """
    filled = np.where(np.isnan(rows), -np.inf, rows)
    top = filled.argmax(axis=1)
    number = np.arange(len(rows))
    inner = np.clip(top, 1, len(shifts) - 2)
    left, middle, right = (rows[number, inner + offset] for offset in (-1, 0, 1))
    bend = left - 2 * middle + right
    flat = ~(bend < 0)
    offset = np.divide(left - right, 2 * bend, out=np.zeros(len(rows)), where=~flat)
    known = (top == inner) & (middle > 0)
    height = middle - (left - right) * offset / 4
    at = shifts[inner] + offset * (shifts[1] - shifts[0])
    return np.where(known, at, np.nan), np.where(known, height, filled.max(axis=1))
