"""`layer_lags`: by how many milliseconds maps come after, or before, the sounds they show."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import Bootstrap, interval, known_means
from attnviz.alignment.correlation import product, standardized
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.reading import MAP
from attnviz.alignment.result import Alignment
from attnviz.arguments import public
from attnviz.errors import MapsError

_STEPS_A_COLUMN = 16  # shifts tried; the peak between them is that of a parabola
COLUMNS = ("readout", "column_ms", "lag_ms", "low", "high", "correlation", "correlation_at_0", "peaked",
           "phrases", "sources")  # fmt: skip


@public
def layer_lags(
    results: Iterable[Alignment], *, max_lag: float = 1.0, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Measure the time lag of layers: the shift of the true activity at which curves correlate with it best.

    Strided convolutions may move a level's centre by part of a column. That is far below a column's width, and is
    found nevertheless: the *activity* is shifted, which is known exactly, and not the curve, which is known at its
    columns alone; and many phrases, whose onsets lie anywhere within a column, are averaged before the peak is
    looked for.

    Parameters
    ----------
    results : iterable of Alignment
        One a readout: for each layer ``Alignment.concat(align(m, e, readout=layer) for m, e in clips)``. The
        events have to be exact, as those of composed scenes are; annotations by ear are not, to a tenth of a
        second.
    max_lag : float
        Largest shift tried, either way, in seconds.
    n_resamples : int
        Bootstrap resamples of source recordings (of clips, for phrases whose events name no source).
    seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        A row a readout: ``readout``, ``column_ms``, ``lag_ms`` (above 0: the map comes after the sound), ``low``
        and ``high`` (95 % interval over the resamples with a peak), ``correlation`` and ``correlation_at_0`` (mean
        of the phrases' Pearson correlations at the lag, and without shift), ``peaked`` (share of resamples with a
        peak), ``phrases``, ``sources``. There is no peak, and the lag is NaN, where the highest correlation is not
        above 0 or stands at the largest shift; a lag where the correlation is low says little.

    Raises
    ------
    MapsError
        `max_lag` is not above 0, `n_resamples` is not a whole number of at least 1, or a result holds maps of
        columns of different widths.

    Notes
    -----
    The correlations of each phrase's curve with its activity, shifted by sixteenths of a column, are averaged over
    phrases; a parabola through the highest value and its neighbours gives the peak. Outside the clip nothing
    sounds. A map that is blurred alike to both sides has no lag.

    Examples
    --------
    ``layer_lags(Alignment.concat(align(m, e, readout=layer) for m, e in clips) for layer in clips[0][0].layers)``
    """
    if not (isinstance(max_lag, int | float) and 0 < max_lag < float("inf")):
        raise MapsError(f"max_lag is {max_lag!r}; seconds above 0 are needed.")
    if not isinstance(n_resamples, int | np.integer) or isinstance(n_resamples, bool) or n_resamples < 1:
        raise MapsError(f"n_resamples is {n_resamples!r}; a whole number from 1 is needed.")
    rows = [_row(result, float(max_lag), int(n_resamples), seed) for result in results]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def shifted_shares(times: np.ndarray, shifts: np.ndarray, columns: int, column_seconds: float) -> np.ndarray:
    """Return which share of each column events cover once they are moved.

    Parameters
    ----------
    times : numpy.ndarray, shape (events, 2)
        Onsets and offsets in seconds, ascending, without contact.
    shifts : numpy.ndarray, shape (shifts,)
        Seconds.
    columns : int
        From 0 s on.
    column_seconds : float

    Returns
    -------
    numpy.ndarray, float64, shape (shifts, columns)
        In [0, 1].
    """
    knots = times.ravel()
    lengths = times[:, 1] - times[:, 0]
    before = np.concatenate([[0.0], np.cumsum(lengths)])
    covered = np.column_stack([before[:-1], before[1:]]).ravel()  # seconds of sound until each onset and offset
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
            f"the phrases of the readout {result.readout!r} have columns of {named} ms; a lag is of columns of "
            "one width. Were maps of several models pooled?"
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
    """Return the correlation of a phrase's curve with its activity at each shift; NaN where one is constant."""
    curve = standardized(phrase.curves[MAP][0][None].astype(np.float64))
    shares = shifted_shares(phrase.events.times, shifts, len(phrase.share), phrase.column_seconds)
    return product(np.broadcast_to(curve, shares.shape), standardized(shares))


def peaks(rows: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shift and height of the highest value of each row, between the shifts; NaN where there is no peak.

    Parameters
    ----------
    rows : numpy.ndarray, shape (rows, shifts)
        NaN counts as no value.
    shifts : numpy.ndarray, shape (shifts,)
        Evenly spaced.
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
