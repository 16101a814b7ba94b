"""Kernel distances of embeddings: unbiased squared maximum mean discrepancy (KAD and KID)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist

from attnviz.arguments import public, whole_number
from attnviz.errors import EvaluationError
from attnviz.evaluation.arrays import checked_pair, checked_rows, checked_units
from attnviz.evaluation.estimate import Estimate, checked_resamples, draws, interval

KAD_SCALE = 100.0
"""KAD is published times 100."""
RESAMPLES = 1000
_MOST_FOR_MEDIAN = 5000  # clips, whose 12.5 million distances take 100 MB
FEWEST_FOR_INTERVAL = 4
"""Clips or units of each set that an interval needs: with 2, it holds the expected value in less than half of the
repetitions."""
_LEAST_WIDTH, _MOST_WIDTH = 1e-70, 1e70
_VALUES_AT_ONCE = 2_000_000  # of a kernel matrix: 16 MB

_Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@public
def kernel_audio_distance(
    evaluated: ArrayLike,
    reference: ArrayLike,
    *,
    bandwidth: float | None = None,
    units: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    r"""Compute the kernel audio distance (KAD): 100 times the unbiased squared MMD with a Gaussian kernel.

    Unlike the Frechet distance it is unbiased at any number of clips, and assumes no Gaussian embeddings.

    Parameters
    ----------
    evaluated, reference : array-like, shape (clips, columns)
        Embeddings of at least two clips each.
    bandwidth : float, optional
        Standard deviation of the kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``. By default, the
        `median_distance` of the reference, so that several systems are compared with one kernel.
    units : array-like of shape (clips,), optional
        Source or prompt of each evaluated clip. The bootstrap draws all clips of a unit together.
    n_resamples : int
        Number of bootstrap resamples; 0 for no interval.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Estimate
        Lower is better. Slightly negative values are usual for sets of the same distribution, since the estimator
        is unbiased. There is no interval for fewer than 4 clips or units. ``details`` has the ``bandwidth``.

    Raises
    ------
    EvaluationError
        If there are too few clips, NaN, different numbers of columns, or a bandwidth that is not positive.

    Notes
    -----
    Differences from the original: kadtk takes the bandwidth from the evaluated set; here it is that of the
    reference. The median of an even number of distances is the mean of the middle two.

    References
    ----------
    Chung et al., KAD: no more FAD!, 2025 (arXiv 2502.15602). Gretton et al., A kernel two-sample test, JMLR 2012.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> near = kernel_audio_distance(rng.normal(size=(80, 3)), rng.normal(size=(90, 3)), n_resamples=0)
    >>> far = kernel_audio_distance(rng.normal(1.0, size=(80, 3)), rng.normal(size=(90, 3)), n_resamples=0)
    >>> abs(near.value) < 1 < far.value
    True
    """
    first, second = checked_pair(evaluated, reference, least=2)
    width = median_distance(second, seed=seed) if bandwidth is None else _checked_bandwidth(bandwidth)
    if width == 0:
        raise EvaluationError(
            "the median distance of the reference embeddings is 0: at least half of its pairs of clips are equal. "
            "Is the same clip in it many times? Otherwise give a bandwidth."
        )

    def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # Distances do not depend on the origin, but the rounding of products does. The median is among the clips,
        # also where the two sets are far apart or one clip is far away.
        centre = np.median(y, axis=0)
        x, y = (x - centre) / width, (y - centre) / width
        squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * x @ y.T
        return np.exp(np.maximum(squared, 0.0) / -2)

    return _distance(first, second, gaussian, KAD_SCALE, units, n_resamples, seed, {"bandwidth": width})


@public
def kernel_inception_distance(
    evaluated: ArrayLike,
    reference: ArrayLike,
    *,
    degree: int = 3,
    units: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Compute the kernel inception distance (KID): the unbiased squared MMD with a polynomial kernel.

    Parameters
    ----------
    evaluated, reference : array-like, shape (clips, columns)
        Embeddings of at least two clips each.
    degree : int
        Degree of the kernel ``(x @ y / columns + 1) ** degree``, from 1 to 10.
    units, n_resamples, seed
        See `kernel_audio_distance`.

    Returns
    -------
    Estimate
        Lower is better; may be slightly negative. Not scaled. No interval for fewer than 4 clips or units.

    Raises
    ------
    EvaluationError
        If there are too few clips, NaN, or different numbers of columns.

    Notes
    -----
    Differences from the original: all clips are used at once, not the mean over random subsets.

    References
    ----------
    Binkowski et al., Demystifying MMD GANs, ICLR 2018.
    """
    degree = whole_number("degree", degree, most=10, error=EvaluationError)
    first, second = checked_pair(evaluated, reference, least=2)

    def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return (x @ y.T / x.shape[1] + 1) ** degree

    return _distance(first, second, polynomial, 1.0, units, n_resamples, seed, {"degree": degree})


@public
def median_distance(embeddings: ArrayLike, *, seed: int = 0) -> float:
    """Return the median Euclidean distance of two clips, the usual bandwidth of a Gaussian kernel.

    Parameters
    ----------
    embeddings : array-like, shape (clips, columns)
        At least two clips. Of more than 5 000, so many are drawn at random.
    seed : int
        Seed of this draw.

    Raises
    ------
    EvaluationError
        If there are too few clips, or NaN.
    """
    rows = checked_rows("embeddings", embeddings, least=2)
    if len(rows) > _MOST_FOR_MEDIAN:
        seed = checked_resamples(0, seed)[1]
        rows = rows[np.random.default_rng(seed).choice(len(rows), _MOST_FOR_MEDIAN, replace=False)]
    apart = rows - rows[0]
    scale = float(np.abs(apart).max()) or 1.0  # squares of small distances would be 0
    return float(np.median(pdist(apart / scale))) * scale


def _checked_bandwidth(bandwidth: float) -> float:
    try:
        width = float(bandwidth)
    except OverflowError:
        width = float("inf")
    if not _LEAST_WIDTH <= width <= _MOST_WIDTH:
        raise EvaluationError(
            f"bandwidth is {bandwidth!r:.80}; a number from {_LEAST_WIDTH:g} to {_MOST_WIDTH:g} is needed, in the "
            "unit of the embeddings."
        )
    return width


def _distance(
    first: np.ndarray,
    second: np.ndarray,
    kernel: _Kernel,
    scale: float,
    units: ArrayLike | None,
    n_resamples: int,
    seed: int,
    details: dict[str, float],
) -> Estimate:
    n_resamples, seed = checked_resamples(n_resamples, seed)
    n, m = len(first), len(second)
    own, other = np.ones((1, n)), np.ones((1, m))  # the clips as they are, then the resamples
    unit = checked_units(units, n)
    if n_resamples and min(len(np.unique(unit)), m) >= FEWEST_FOR_INTERVAL:
        own = np.concatenate([own, *draws(unit, n_resamples, seed)])
        other = np.concatenate([other, *draws(np.arange(m), n_resamples, seed, reference=True)])
    with np.errstate(invalid="ignore"):  # a kernel that overflows, which is refused below
        values = scale * (
            _mean_within(first, kernel, own)
            + _mean_within(second, kernel, other)
            - 2 * _sums(first, second, kernel, own, other) / (own.sum(axis=1) * other.sum(axis=1))
        )
    value = float(values[0])
    if not np.isfinite(value):
        raise EvaluationError(
            f"the kernel of embeddings up to {max(np.abs(first).max(), np.abs(second).max()):.3g} is no finite "
            "number. Divide both sets by the same number, or choose a lower degree."
        )
    defined = values[1:][np.isfinite(values[1:])]  # a resample of one clip alone has no pairs
    low, high = interval(value, defined)
    return Estimate(value, low, high, n, m, FEWEST_FOR_INTERVAL, "lower", details=details)


def _mean_within(rows: np.ndarray, kernel: _Kernel, weights: np.ndarray) -> np.ndarray:
    """Return the mean kernel over pairs of different clips for each resample.

    A clip drawn twice is no pair: its kernel with itself would raise the mean of every resample.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = weights.sum(axis=1) ** 2 - np.square(weights).sum(axis=1)
        return _sums(rows, rows, kernel, weights, weights, apart=True) / pairs


def _sums(
    x: np.ndarray, y: np.ndarray, kernel: _Kernel, own: np.ndarray, other: np.ndarray, *, apart: bool = False
) -> np.ndarray:
    """Return the weighted sum of the kernel over all pairs for each resample, without holding the whole matrix."""
    total = np.zeros(len(own))
    step = max(1, _VALUES_AT_ONCE // max(len(y), len(own)))
    for start in range(0, len(x), step):
        block = kernel(x[start : start + step], y)
        if apart:
            rows = np.arange(len(block))
            block[rows, start + rows] = 0.0
        total += np.einsum("rb,rb->r", own[:, start : start + step], other @ block.T)
    return total
