"""CLAP score: how well audio matches its caption."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from attnviz.arguments import public
from attnviz.errors import EvaluationError
from attnviz.evaluation.arrays import checked_matches, checked_units
from attnviz.evaluation.estimate import Estimate, checked_resamples, mean_estimate

RESAMPLES = 1000


@public
def clap_score(
    audio: ArrayLike,
    text: ArrayLike,
    *,
    units: ArrayLike | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Compute the mean cosine similarity of clips and their captions in a shared embedding space.

    Parameters
    ----------
    audio, text : array-like, shape (clips, columns)
        Embeddings of clips and captions of one model; row i of both is a pair. They need not be normalized.
    units : array-like of shape (clips,), optional
        Source or prompt of each clip. The bootstrap draws all clips of a unit together.
    n_resamples : int
        Number of bootstrap resamples; 0 for no interval.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    Estimate
        In [-1, 1], with the value ``per_clip``; higher is better. Papers also print it in percent.

    Raises
    ------
    EvaluationError
        If the shapes differ, or an embedding is NaN or zero.

    Examples
    --------
    >>> clap_score([[3.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], n_resamples=0).value
    0.5
    """
    n_resamples, seed = checked_resamples(n_resamples, seed)
    pairs = checked_matches("audio", audio, "text", text)
    unit = []
    for name, rows in zip(("audio", "text"), pairs, strict=True):
        largest = np.abs(rows).max(axis=1, keepdims=True)
        if not largest.all():
            raise EvaluationError(
                f"{name} has an embedding of zeros in row {largest.argmin()}, which has no direction."
            )
        scaled = rows / largest  # squares of small values would be 0
        unit.append(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
    values = (unit[0] * unit[1]).sum(axis=1)
    return mean_estimate(
        values, checked_units(units, len(values)), n_resamples=n_resamples, seed=seed, n_reference=0,
        better="higher", lowest=-1.0, highest=1.0, details={},
    )  # fmt: skip
