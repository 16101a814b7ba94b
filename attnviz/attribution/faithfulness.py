"""Faithfulness of an attribution to the model: deletion and insertion curves, and captum's infidelity.

A *game* maps sets of kept players to a target of the model. Players are the words of a caption (`WordAblation`),
heads (`HeadAblation`) or cells (`CellAblation`). A method of attribution scores the players, and what is measured
here is whether the players with the highest scores are those that the model depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from attnviz.arguments import public, whole_number
from attnviz.errors import ArgumentError, MapsError

_MOST_SAMPLES = 1 << 16


@runtime_checkable
class Game(Protocol):
    """A target of the model as a function of what is kept."""

    @property
    def players(self) -> Sequence[str]:
        """Names of what can be deleted."""
        ...

    def __call__(self, coalitions: Sequence[frozenset[int]]) -> torch.Tensor:
        """Return the target for each set of kept players, by index: (coalitions,) float64."""
        ...

    def random_scores(self, generator: np.random.Generator) -> np.ndarray:
        """Draw scores of the players that know nothing."""
        ...


@public
@dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """A target of the model as more and more is deleted or inserted.

    Attributes
    ----------
    fractions : numpy.ndarray, shape (points,)
        Fraction of the players that are deleted or inserted, from 0 to 1.
    values : numpy.ndarray, shape (points,)
        The target.
    """

    fractions: np.ndarray
    values: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve, by the trapezoidal rule: the mean of the target over all fractions."""
        return float(np.trapezoid(self.values, self.fractions))

    def __repr__(self) -> str:
        return f"Curve(area={self.area:.4g}, {len(self.values)} points)"


@public
@dataclass(frozen=True, eq=False)
class DeletionInsertion:
    """Deletion and insertion curves of one ranking.

    Attributes
    ----------
    deletion : Curve
        The target as players are deleted, the highest score first: a faithful ranking has a small area.
    insertion : Curve
        The target as players are inserted, the highest score first: a faithful ranking has a large area.
    order : tuple of str
        Players from the highest score to the lowest; empty for a mean over rankings.
    """

    deletion: Curve
    insertion: Curve
    order: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """Area of insertion less that of deletion. Higher is better; random orders have about 0."""
        return self.insertion.area - self.deletion.area


@public
def deletion_insertion(
    game: Game, scores: Sequence[float] | np.ndarray, *, fractions: Sequence[float] | np.ndarray | None = None
) -> DeletionInsertion:
    """Compute deletion and insertion curves: what the model still does without the players of highest score.

    Parameters
    ----------
    game : WordAblation, HeadAblation, CellAblation or another callable with `players`
        The target of the model.
    scores : sequence of float, shape (players,)
        Score of each player by a method; see `scores` of these classes. Equal scores keep the players' order.
    fractions : sequence of float, optional
        Fractions of the players, from 0 to 1, at which the target is evaluated. Default: after each player.

    Returns
    -------
    DeletionInsertion

    Raises
    ------
    MapsError
        If there is not one finite score for each player.
    ArgumentError
        If the fractions do not ascend from 0 to 1.

    Notes
    -----
    Insertion of the first k players keeps them alone; deletion of the first k keeps all others.

    References: Petsiuk, Das & Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models (arXiv
    1806.07421). Differences from the original: the target of words and heads is relative to the whole, and nothing
    is blurred.
    """
    count = len(game.players)
    values = _checked(scores, count)
    counts = _counts(count, fractions)
    order = np.argsort(-values, kind="stable").tolist()
    kept = [frozenset(order[each:]) for each in counts] + [frozenset(order[:each]) for each in counts]
    found = game(kept).double().cpu().numpy()
    places = counts / count
    return DeletionInsertion(
        Curve(places, found[: len(counts)]),
        Curve(places, found[len(counts) :]),
        tuple(game.players[each] for each in order),
    )


@public
def random_deletion_insertion(
    game: Game, *, orders: int = 10, seed: int = 0, fractions: Sequence[float] | np.ndarray | None = None
) -> DeletionInsertion:
    """Compute the mean deletion and insertion curves of random scores: the control of `deletion_insertion`.

    Parameters
    ----------
    game : WordAblation, HeadAblation, CellAblation or another game
        Its `random_scores` draws the scores: an order at random, or, for cells, smooth noise.
    orders : int
        Number of random rankings.
    seed : int
        Seed of the rankings.
    fractions : sequence of float, optional
        As for `deletion_insertion`.

    Returns
    -------
    DeletionInsertion
    """
    number = whole_number("orders", orders, most=_MOST_SAMPLES)
    generator = np.random.default_rng(whole_number("seed", seed, least=0, most=2**64 - 1))
    drawn = [deletion_insertion(game, game.random_scores(generator), fractions=fractions) for _ in range(number)]
    means = [
        Curve(curves[0].fractions, np.mean([curve.values for curve in curves], axis=0))
        for curves in ([one.deletion for one in drawn], [one.insertion for one in drawn])
    ]
    return DeletionInsertion(means[0], means[1])


@public
def infidelity(
    game: Game, scores: Sequence[float] | np.ndarray, *, n_perturb_samples: int = 32, seed: int = 0
) -> float:
    """Compute captum's infidelity: how far scores are from the change of the target when players are removed.

    Parameters
    ----------
    game : WordAblation, HeadAblation, CellAblation or another game
    scores : sequence of float, shape (players,)
        Score of each player by a method.
    n_perturb_samples : int
        Number of random sets of removed players. Each player is removed with a probability of one half.
    seed : int
        Seed of the sets.

    Returns
    -------
    float
        Expected square of the difference between the scores of the removed players, summed, and the change of the
        target. 0 is the best. Scores are scaled to fit (captum's ``normalize``), so that methods of different
        units can be compared; the infidelity of scores that say nothing is the mean square of the changes.

    Raises
    ------
    MapsError
        If there is not one finite score for each player.

    Notes
    -----
    References: Yeh et al., On the (In)fidelity and Sensitivity of Explanations (arXiv 1901.09392), with their
    removal of random subsets; computed by `captum.metrics.infidelity`.
    """
    from captum.metrics import infidelity as captums

    number = whole_number("n_perturb_samples", n_perturb_samples, most=_MOST_SAMPLES)
    given = torch.from_numpy(_checked(scores, len(game.players)))
    generator = np.random.default_rng(whole_number("seed", seed, least=0, most=2**64 - 1))

    def of_gates(gates: torch.Tensor) -> torch.Tensor:
        return game([frozenset(np.flatnonzero(row).tolist()) for row in gates.cpu().numpy()]).double()

    def removed(gates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.from_numpy(generator.integers(0, 2, size=tuple(gates.shape)).astype(np.float64))
        return out, gates - out

    everyone = torch.ones(1, len(given), dtype=torch.float64)
    perturb: Callable[..., tuple[torch.Tensor, torch.Tensor]] = removed
    found = captums(of_gates, perturb, everyone, given[None], n_perturb_samples=number, normalize=True)
    return float(found)


def _checked(scores: Sequence[float] | np.ndarray, players: int) -> np.ndarray:
    """Return scores as an array of one finite number for each player."""
    values = np.array(scores, dtype=np.float64)
    finite = bool(np.isfinite(values).all())
    if values.shape != (players,) or not finite:
        raise MapsError(
            f"scores has the shape {values.shape}{'' if finite else ', with NaN or infinite numbers'}; one finite "
            f"score for each of the {players} players is needed."
        )
    return values


def _counts(players: int, fractions: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """Return numbers of players, ascending from 0 to all."""
    if fractions is None:
        return np.arange(players + 1)
    given = np.asarray(fractions, dtype=np.float64)
    ascending = given.ndim == 1 and len(given) > 1 and bool((np.diff(given) > 0).all())
    if not ascending or given[0] != 0 or given[-1] != 1:
        raise ArgumentError(f"fractions is {fractions!r}; numbers that ascend from 0 to 1 are needed.")
    return np.unique(np.round(given * players).astype(int))
