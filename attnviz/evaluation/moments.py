"""Mean and covariance of embeddings, computed over parts and merged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from attnviz.arguments import public
from attnviz.errors import EvaluationError
from attnviz.evaluation.arrays import checked_rows
from attnviz.wording import counted, short_repr


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean and covariance of clips' embeddings, without the embeddings.

    The size does not grow with the number of clips. A part of a data set is ``Moments.of(embeddings)``, and
    ``Moments.merge(parts)`` is the whole.

    Attributes
    ----------
    count : int
        Number of clips.
    mean : numpy.ndarray, shape (columns,), float64
    scatter : numpy.ndarray, shape (columns, columns), float64
        Sum over clips of the outer product of the deviation from the mean with itself.

    References
    ----------
    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> embeddings = rng.normal(size=(100, 3))
    >>> whole = Moments.merge([Moments.of(embeddings[:70]), Moments.of(embeddings[70:])])
    >>> whole.count, np.allclose(whole.covariance, np.cov(embeddings.T))
    (100, True)
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    __repr__ = short_repr

    @classmethod
    @public
    def of(cls, embeddings: ArrayLike) -> Moments:
        """Compute the moments of embeddings.

        Parameters
        ----------
        embeddings : array-like, shape (clips, columns)
            At least one clip.

        Raises
        ------
        EvaluationError
            If the array has another shape, or NaN.
        """
        rows = checked_rows("embeddings", embeddings)
        mean = rows.mean(axis=0)
        left = rows - mean
        return cls(len(rows), mean, left.T @ left)

    @classmethod
    @public
    def merge(cls, parts: Iterable[Moments]) -> Moments:
        """Merge the moments of parts without clips in common.

        Parameters
        ----------
        parts : iterable of Moments
            Read one after the other. Another order, or another division into parts, changes the last digits only;
            the same parts in the same order give identical numbers.

        Raises
        ------
        EvaluationError
            If there are no parts, or their numbers of columns differ.
        """
        whole: Moments | None = None
        for part in parts:
            if not isinstance(part, Moments):
                raise EvaluationError(f"parts has a {type(part).__name__}; expected Moments.")
            part.check("parts")
            whole = part if whole is None else _merged(whole, part)
        if whole is None:
            raise EvaluationError("parts is empty; at least one Moments is needed.")
        return whole

    def check(self, name: str) -> None:
        """Raise if mean and scatter are not finite, or do not fit each other.

        Raises
        ------
        EvaluationError
            With `name`, that of the argument.
        """
        columns = len(self.mean)
        if np.shape(self.scatter) != (columns, columns):
            raise EvaluationError(
                f"{name}: a mean of {counted(columns, 'column')} with a scatter of shape {np.shape(self.scatter)}."
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scatter).all()):
            raise EvaluationError(f"{name}: the moments have values that are NaN or infinite.")

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance, ``(columns, columns)``.

        Raises
        ------
        EvaluationError
            For fewer than two clips.
        """
        if self.count < 2:
            raise EvaluationError(
                f"the moments are of {counted(self.count, 'clip')}; a covariance needs at least 2."
            )
        return self.scatter / (self.count - 1)


def _merged(first: Moments, second: Moments) -> Moments:
    if first.mean.shape != second.mean.shape:
        raise EvaluationError(
            f"parts have {len(first.mean)} and {len(second.mean)} columns; all must come from the same embedder."
        )
    count = first.count + second.count
    apart = second.mean - first.mean
    mean = first.mean + apart * (second.count / count)
    between = np.outer(apart, apart) * (first.count * second.count / count)
    return Moments(count, mean, first.scatter + second.scatter + between)
