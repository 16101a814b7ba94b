"""Frechet distance of embeddings (FD, FAD, FID), and its extrapolation to infinitely many clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from attnviz.arguments import public, whole_number
from attnviz.errors import EvaluationError
from attnviz.evaluation.arrays import check_columns, checked_pair, checked_rows, checked_units
from attnviz.evaluation.estimate import Estimate, check_enough, checked_resamples, interval, paired_draws
from attnviz.evaluation.moments import Moments

RESAMPLES = 200
"""Default number of resamples: fewer than elsewhere, since each needs a singular value decomposition."""
_MOST_DRAWS, _MOST_SIZES = 1000, 1000
_WHY = "the embedding's dimension plus one"


@public
def frechet_distance(
    evaluated: ArrayLike | Moments,
    reference: ArrayLike | Moments,
    *,
    units: ArrayLike | None = None,
    allow_few: bool = False,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    r"""Compute the Frechet distance between Gaussians fitted to two sets of embeddings.

    .. math:: |\mu_1 - \mu_2|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})

    With VGGish embeddings this is FAD, with PANNs embeddings the FD of AudioLDM. Values of different embedders do
    not compare, nor do values of different numbers of clips: the distance is biased upwards by about c / clips.

    Parameters
    ----------
    evaluated, reference : array-like of shape (clips, columns), or Moments
        Embeddings, or their moments. At least ``columns + 1`` clips each.
    units : array-like of shape (clips,), optional
        Source or prompt of each evaluated clip. The bootstrap draws all clips of a unit together.
    allow_few : bool
        Whether to compute the distance of fewer clips, with a `FewClipsWarning`. Covariances are then singular and
        the bias is large. At least two clips are needed.
    n_resamples : int
        Number of bootstrap resamples; 0 for no interval. Moments have no interval.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Estimate
        The distance, at least 0; lower is better.

    Raises
    ------
    EvaluationError
        If there are too few clips, NaN, or different numbers of columns.

    Notes
    -----
    The trace of the matrix root is the sum of the singular values of ``A.T @ B``, where ``A @ A.T`` and
    ``B @ B.T`` are the covariances. Unlike the root of the product of the covariances, it is real and accurate for
    singular covariances, never negative in total, and 0 for equal sets.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> clips = rng.normal(size=(50, 3))
    >>> round(frechet_distance(clips + [2.0, 0.0, 0.0], clips, n_resamples=0).value, 6)
    4.0
    """
    n_resamples, seed = checked_resamples(n_resamples, seed)
    first, n, own = _read("evaluated", evaluated)
    second, n_reference, other = _read("reference", reference)
    check_columns(len(first.mean), len(second.mean))
    needed = len(first.mean) + 1
    check_enough("the Frechet distance", (n, n_reference), (needed, needed), why=_WHY, allow_few=allow_few)
    value = _distance(first, second)
    low = high = float("nan")
    if own is not None and other is not None and n_resamples:
        drawn = paired_draws(checked_units(units, n), np.arange(n_reference), n_resamples, seed)
        own, other = _shared_span(own, other)
        replicates = [_distance(_gaussian(own, a), _gaussian(other, b)) for a, b in drawn]
        low, high = interval(value, np.array(replicates), lowest=0.0)
    return Estimate(value, low, high, n, n_reference, needed, "lower")


@public
def frechet_distance_infinity(
    evaluated: ArrayLike,
    reference: ArrayLike,
    *,
    vary: Literal["evaluated", "both"] = "evaluated",
    units: ArrayLike | None = None,
    n_sizes: int = 10,
    n_draws: int = 10,
    allow_few: bool = False,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Extrapolate the Frechet distance to infinitely many clips (FD-infinity, FAD-infinity).

    The distance of random subsets is fitted by a straight line over 1 / clips, whose value at 0 is the result.

    Parameters
    ----------
    evaluated, reference : array-like, shape (clips, columns)
        Embeddings, at least ``2 * (columns + 1)`` clips of each set that is varied and ``columns + 1`` of another.
    vary : {"evaluated", "both"}
        Which sets are extrapolated. ``"evaluated"``, as in fadtk: the bias of a small reference remains.
        ``"both"``: subsets of both sets, of the same fraction.
    units : array-like of shape (clips,), optional
        See `frechet_distance`.
    n_sizes : int
        Number of sizes, from half to all of the clips.
    n_draws : int
        Number of random subsets of each size, whose distances are averaged.
    allow_few, n_resamples, seed
        See `frechet_distance`.

    Returns
    -------
    Estimate
        The extrapolated distance; it may be slightly negative for sets of the same distribution. ``details`` has
        ``slope`` (the bias times the number of evaluated clips), ``r_squared`` of the line, ``vary``, and
        ``clips_for_5_percent``: how many evaluated clips make the bias smaller than 5 % of the result (None if the
        result is not positive).

    Raises
    ------
    EvaluationError
        If there are too few clips, NaN, or different numbers of columns.

    Notes
    -----
    Differences from the original: subsets are drawn without replacement, as Chong and Forsyth do. fadtk draws with
    replacement, which extrapolates to the distance of the given clips and leaves their bias in.

    References
    ----------
    Chong and Forsyth, Effectively unbiased FID and Inception score, CVPR 2020. Gui et al., Adapting Frechet audio
    distance for generative music evaluation, ICASSP 2024.
    """
    n_resamples, seed = checked_resamples(n_resamples, seed)
    n_sizes = whole_number("n_sizes", n_sizes, least=2, most=_MOST_SIZES, error=EvaluationError)
    n_draws = whole_number("n_draws", n_draws, most=_MOST_DRAWS, error=EvaluationError)
    if vary not in ("evaluated", "both"):
        raise EvaluationError(f"vary is {vary!r}; expected 'evaluated' or 'both'.")
    first, second = checked_pair(evaluated, reference, least=4)
    columns = first.shape[1]
    needed = 2 * (columns + 1)
    both = vary == "both"
    check_enough(
        "the extrapolated Frechet distance", (len(first), len(second)), (needed, needed if both else columns + 1),
        why=f"{_WHY} for each subset", allow_few=allow_few,
    )  # fmt: skip
    own = checked_units(units, len(first))
    first, second = _shared_span(first, second)
    line = _line(first, second, np.random.default_rng(seed), n_sizes, n_draws, both=both)
    low = high = float("nan")
    if n_resamples:
        rng = np.random.default_rng(seed)
        replicates = [
            _line(np.repeat(first, a, axis=0), np.repeat(second, b, axis=0), rng, 2, 1, both=both).at_infinity
            for a, b in paired_draws(own, np.arange(len(second)), n_resamples, seed)
            if a.sum() >= 4  # units of very different sizes
        ]
        low, high = interval(line.at_infinity, np.array(replicates))
    within = None
    if line.at_infinity > 0:
        within = int(np.ceil(max(line.slope, 0.0) / (0.05 * line.at_infinity)))
    details = {"vary": vary, "slope": line.slope, "r_squared": line.r_squared, "clips_for_5_percent": within}
    return Estimate(line.at_infinity, low, high, len(first), len(second), needed, "lower", details=details)


@dataclass(frozen=True, eq=False)
class _Gaussian:
    """A mean, and a factor A of the covariance ``A @ A.T``."""

    mean: np.ndarray
    factor: np.ndarray


@dataclass(frozen=True)
class _Line:
    at_infinity: float
    slope: float
    r_squared: float


def _read(name: str, given: ArrayLike | Moments) -> tuple[_Gaussian, int, np.ndarray | None]:
    """Return the Gaussian of a set, its number of clips, and its embeddings if they are given."""
    if isinstance(given, Moments):
        given.check(name)
        return _Gaussian(given.mean, _factor(given.covariance)), given.count, None
    rows = checked_rows(name, given, least=2)
    return _gaussian(rows), len(rows), rows


def _gaussian(rows: np.ndarray, drawn: np.ndarray | None = None) -> _Gaussian:
    """Return the Gaussian of rows, each counted as often as it was drawn."""
    if drawn is None:
        mean, count = rows.mean(axis=0), len(rows)
        left = rows - mean
    else:
        here, count = drawn > 0, int(drawn.sum())
        weight = drawn[here].astype(np.float64)
        mean = weight @ rows[here] / count
        left = (rows[here] - mean) * np.sqrt(weight)[:, None]
    if len(left) > left.shape[1]:
        left = scipy.linalg.qr(left, mode="r", overwrite_a=True, check_finite=False)[0][: left.shape[1]]
    return _Gaussian(mean, left.T / np.sqrt(max(count - 1, 1)))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return A with ``A @ A.T`` equal to a covariance; rounding is no variance."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _distance(first: _Gaussian, second: _Gaussian) -> float:
    apart = first.mean - second.mean
    spread = np.square(first.factor).sum() + np.square(second.factor).sum()
    shared = np.linalg.svd(first.factor.T @ second.factor, compute_uv=False).sum()
    return float(max(apart @ apart + spread - 2 * shared, 0.0))


def _shared_span(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate two sets into the space that their rows span, which changes no distance; as they are if it is all."""
    together = np.concatenate([first, second])
    if len(together) >= together.shape[1]:
        return first, second
    basis = scipy.linalg.qr(together.T, mode="economic", check_finite=False)[0]
    return first @ basis, second @ basis


def _line(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator, n_sizes: int, n_draws: int, *, both: bool
) -> _Line:
    """Fit the distance of subsets over 1 / clips."""
    sizes = np.unique(np.linspace(max(len(first) // 2, 2), len(first), n_sizes).astype(int))
    whole = _gaussian(second)
    distances = np.zeros(len(sizes))
    for _ in range(n_draws):
        order, other = rng.permutation(len(first)), rng.permutation(len(second))
        for i, size in enumerate(sizes):
            share = max(round(len(second) * size / len(first)), 2)
            distances[i] += _distance(
                _gaussian(first[order[:size]]), _gaussian(second[other[:share]]) if both else whole
            )
    distances /= n_draws
    over = 1 / sizes
    slope, at_infinity = np.polyfit(over, distances, 1)
    residual = np.square(distances - (slope * over + at_infinity)).sum()
    spread = np.square(distances - distances.mean()).sum()
    return _Line(float(at_infinity), float(slope), float(1 - residual / spread) if spread > 0 else 1.0)
