"""Metrics of class scores: inception score (IS) and Kullback-Leibler divergence of pairs (KL)."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from attnviz.arguments import public, whole_number
from attnviz.errors import EvaluationError
from attnviz.evaluation.arrays import Given, checked_matches, checked_units, class_probabilities
from attnviz.evaluation.estimate import Estimate, checked_resamples, draws, interval, mean_estimate

RESAMPLES = 1000


@public
def inception_score(
    scores: ArrayLike,
    *,
    given: Given = "logits",
    splits: int = 1,
    units: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Compute the inception score: how sure a classifier is of each clip, and how varied the clips are.

    It is the exponential of the mean Kullback-Leibler divergence of a clip's class distribution from the mean over
    clips: 1 if all clips have the same distribution, at most the number of classes or clips.

    Parameters
    ----------
    scores : array-like, shape (clips, classes)
    given : {"logits", "probabilities"}
        What the scores are. The softmax of logits is used, also of a classifier of several labels.
    splits : int
        Number of consecutive parts whose scores are averaged. audioldm_eval shuffles the clips and uses 10, which
        lowers the score: values with different numbers of splits do not compare.
    units : array-like of shape (clips,), optional
        Source or prompt of each clip. The bootstrap draws all clips of a unit together.
    n_resamples : int
        Number of bootstrap resamples; 0 for no interval.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Estimate
        Higher is better. ``needed`` is the number of classes times that of splits: fewer clips cannot contain all
        classes. ``details`` has ``splits`` and ``classes``.

    Raises
    ------
    EvaluationError
        If there are fewer clips than splits, NaN, or invalid probabilities.

    References
    ----------
    Salimans et al., Improved techniques for training GANs, NeurIPS 2016.

    Examples
    --------
    >>> round(inception_score(np.eye(4), given="probabilities", n_resamples=0).value, 6)
    4.0
    """
    n_resamples, seed = checked_resamples(n_resamples, seed)
    p = class_probabilities("scores", scores, given)
    splits = whole_number("splits", splits, most=len(p), error=EvaluationError)
    own = checked_units(units, len(p))
    bounds = [i * len(p) // splits for i in range(splits + 1)]
    entropies = xlogy(p, p).sum(axis=1)

    def score(weights: np.ndarray) -> np.ndarray:
        parts = [_score(p[a:b], entropies[a:b], weights[:, a:b]) for a, b in itertools.pairwise(bounds)]
        return np.mean(parts, axis=0)

    value = max(float(score(np.ones((1, len(p))))[0]), 1.0)  # below 1 by rounding only
    replicates = np.concatenate([score(batch) for batch in draws(own, n_resamples, seed)] or [np.zeros(0)])
    low, high = interval(value, replicates[np.isfinite(replicates)], lowest=1.0, highest=p.shape[1])
    details = {"splits": splits, "classes": p.shape[1]}
    return Estimate(value, low, high, len(p), 0, p.shape[1] * splits, "higher", details=details)


@public
def kl_divergence(
    evaluated: ArrayLike,
    reference: ArrayLike,
    *,
    convention: Literal["softmax", "sigmoid"] = "softmax",
    given: Given = "logits",
    epsilon: float = 1e-6,
    units: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Compute the mean Kullback-Leibler divergence of evaluated clips from their reference clips.

    Parameters
    ----------
    evaluated, reference : array-like, shape (clips, classes)
        Class scores; row i of both is the pair i, such as two clips of one caption.
    convention : {"softmax", "sigmoid"}
        Both of audioldm_eval. ``"softmax"``: of the distribution over classes, as AudioGen and most papers do.
        ``"sigmoid"``: the sum over classes of ``p log(p / q)`` of each class's own probability. It leaves out the
        term of 1 - p, so it is not a divergence and may be negative.
    given : {"logits", "probabilities"}
        What the scores are; probabilities are used as they are.
    epsilon : float
        Added to the evaluated clip's probability before the logarithm, from 0 to 0.1. 1e-6 is that of
        audioldm_eval, with which equal pairs have about -1e-6 per class instead of 0.
    units, n_resamples, seed
        See `inception_score`.

    Returns
    -------
    Estimate
        Divergence in nats, with the value ``per_clip``; lower is better. ``details`` has ``convention``.

    Raises
    ------
    EvaluationError
        If the shapes differ, or there is NaN or an invalid probability.

    Notes
    -----
    The value of a pair is ``sum(p * (log(p) - log(q + epsilon)))`` with the reference's p and the evaluated clip's
    q.

    Examples
    --------
    >>> kl = kl_divergence([[0.5, 0.5]], [[1.0, 0.0]], given="probabilities")
    >>> round(kl.value, 4)  # log 2
    0.6931
    """
    if convention not in ("softmax", "sigmoid"):
        raise EvaluationError(f"convention is {convention!r}; expected 'softmax' or 'sigmoid'.")
    if not 0 <= epsilon <= 0.1:
        raise EvaluationError(f"epsilon is {epsilon}; a number from 0 to 0.1 is needed.")
    n_resamples, seed = checked_resamples(n_resamples, seed)
    pairs = checked_matches("evaluated", evaluated, "reference", reference)
    names = ("evaluated", "reference")
    q, p = (class_probabilities(name, rows, given, convention) for name, rows in zip(names, pairs, strict=True))
    values = xlogy(p, p).sum(axis=1) - xlogy(p, q + epsilon).sum(axis=1)
    if not np.isfinite(values).all():
        raise EvaluationError(
            f"pair {np.isfinite(values).argmin()} has an infinite divergence: the evaluated clip gives 0 to a "
            "class that its reference has. Give a positive epsilon."
        )
    return mean_estimate(
        values, checked_units(units, len(values)), n_resamples=n_resamples, seed=seed, n_reference=len(values),
        better="lower", lowest=-np.inf, highest=np.inf, details={"convention": convention},
    )  # fmt: skip


def _score(p: np.ndarray, entropies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the score for each resample; NaN if it has none of these clips."""
    total = weights.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = weights @ p / total[:, None]
        return np.exp(weights @ entropies / total - xlogy(mean, mean).sum(axis=1))
