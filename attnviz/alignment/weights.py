"""Weights that examples give: two plain choices, and an elastic net without negative weights at many strengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import enet_path

from attnviz.alignment.calibration import Example, splits
from attnviz.alignment.ranking import auc_of, rank

ALIKE, SINGLE = "all alike", "one alone"
"""The two choices of weights that need no regression."""

STRENGTHS = tuple(float(share) for share in np.geomspace(0.9, 0.001, 16).round(6))
"""Strengths of regularisation, as shares of the one from which on no part has a weight; strongest first."""

CHOICES = (ALIKE, SINGLE, *(f"elastic net, strength {share:g}" for share in STRENGTHS))
"""What is chosen from, simplest first."""

_L1 = 0.5
_DECIMALS = 9
_SMALLEST = 1e-6  # of the largest weight: below it is what the solver leaves of 0


def choice_scores(examples: Sequence[Example], folds: int) -> np.ndarray:
    """Return the mean held-out area of each choice of weights, by cross-validation."""
    scores = [
        areas([examples[index] for index in held], choice_weights([examples[index] for index in rest]))
        for rest, held in splits(examples, folds)
    ]
    return np.concatenate(scores).mean(axis=0).round(9)


def choice_weights(examples: Sequence[Example]) -> np.ndarray:
    """Return the weights that examples give for each choice, ``(choices, parts)``; each row sums to 1."""
    # Each phrase counts alike, however long its clip, and a constant of its own is free to it.
    rows = np.concatenate([_centred(example.parts) for example in examples], axis=1).T
    truth = np.concatenate([_centred(example.phrase.active[None]) for example in examples], axis=1)[0]
    count = rows.shape[1]
    alike = np.full(count, 1 / count)
    single = np.eye(count)[int(np.argmax(areas(examples, np.eye(count)).mean(axis=0)))]
    highest = float((rows.T @ truth).max()) / len(truth) / _L1
    if highest <= 0:  # no part rises where the sound is: any net is empty
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
    """Return the area under the ROC curve of each example by each choice of weights.

    Parameters
    ----------
    examples : sequence of Example
    weights : numpy.ndarray, shape (choices, parts)
    layers : bool
        The weights are of whole layers.

    Returns
    -------
    numpy.ndarray, shape (examples, choices)
    """
    scores = []
    for example in examples:
        curves = weights @ (example.layers if layers else example.parts)
        # Sums of the same numbers in another order are the same value.
        ranking = rank(np.round(curves, _DECIMALS))
        scores.append(auc_of(ranking, np.broadcast_to(example.phrase.active, curves.shape)))
    return np.array(scores)


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean(axis=1, keepdims=True)) / np.sqrt(values.shape[1]))
