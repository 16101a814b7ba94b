"""Fit weights on examples: two simple choices, and non-negative elastic nets of several strengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import enet_path

from attnviz.alignment.calibration import Example, splits
from attnviz.alignment.ranking import auc_of, rank

ALIKE, SINGLE = "all alike", "one alone"
"""The two choices of weights without regression."""

STRENGTHS = tuple(float(share) for share in np.geomspace(0.9, 0.001, 16).round(6))
"""Strengths of regularisation, as fractions of the strength at which all weights are 0; strongest first."""

CHOICES = (ALIKE, SINGLE, *(f"elastic net, strength {share:g}" for share in STRENGTHS))
"""All choices of weights, simplest first."""

_L1 = 0.5
_DECIMALS = 9
_SMALLEST = 1e-6  # relative to the largest weight; smaller weights are numerical zeros of the solver


def choice_scores(examples: Sequence[Example], folds: int) -> np.ndarray:
    """Return the mean held-out area of each choice of weights by cross-validation."""
    scores = [
        areas([examples[index] for index in held], choice_weights([examples[index] for index in rest]))
        for rest, held in splits(examples, folds)
    ]
    return np.concatenate(scores).mean(axis=0).round(9)


def choice_weights(examples: Sequence[Example]) -> np.ndarray:
    """Fit the weights of each choice on examples, ``(choices, parts)``; each row sums to 1."""
    # Each phrase has equal weight, regardless of the length of its clip, and its own intercept.
    rows = np.concatenate([_centred(example.parts) for example in examples], axis=1).T
    truth = np.concatenate([_centred(example.phrase.active[None]) for example in examples], axis=1)[0]
    count = rows.shape[1]
    alike = np.full(count, 1 / count)
    single = np.eye(count)[int(np.argmax(areas(examples, np.eye(count)).mean(axis=0)))]
    highest = float((rows.T @ truth).max()) / len(truth) / _L1
    if highest <= 0:  # no part correlates positively with the activity: all weights would be 0
        return np.array([alike, single, *([alike] * len(STRENGTHS))])
    _, net, _ = enet_path(
        rows,
        truth,
        l1_ratio=_L1,
        alphas=np.array(STRENGTHS) * highest,
        positive=True,
        precompute=True,
        tol=1e-8,
        max_iter=20_000,
    )
    net = np.where(net < _SMALLEST * net.max(axis=0), 0.0, net)
    return np.array([alike, single, *(net / net.sum(axis=0)).T])


def areas(examples: Sequence[Example], weights: np.ndarray, *, layers: bool = False) -> np.ndarray:
    """Compute the area under the ROC curve of each example for each choice of weights.

    Parameters
    ----------
    examples : sequence of Example
    weights : numpy.ndarray, shape (choices, parts)
    layers : bool
        Whether the weights are of whole layers.

    Returns
    -------
    numpy.ndarray, shape (examples, choices)
    """
    scores = []
    for example in examples:
        curves = weights @ (example.layers if layers else example.parts)
        # Round, because sums in a different order may differ.
        ranking = rank(np.round(curves, _DECIMALS))
        scores.append(auc_of(ranking, np.broadcast_to(example.phrase.active, curves.shape)))
    return np.array(scores)


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean(axis=1, keepdims=True)) / np.sqrt(values.shape[1]))
