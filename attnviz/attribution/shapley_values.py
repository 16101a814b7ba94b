"""Shapley values of a game with few players: exact, or from antithetic permutations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

Coalition = frozenset[int]
Game = Callable[[Sequence[Coalition]], torch.Tensor]
"""Maps coalitions, sets of players, to their values, (coalitions, ...)."""

EXACT = 6
"""Most players whose coalitions, 2 to their number, are all evaluated."""


def shapley_values(game: Game, players: int, *, permutations: int, seed: int) -> torch.Tensor:
    """Compute the Shapley value of each player.

    Parameters
    ----------
    game : callable
        Called once, with all coalitions that are needed, each once.
    players : int
        Number of players.
    permutations : int
        Number of orders in which players join, for more than `EXACT` players: even, since each order is followed
        by its reverse.
    seed : int
        Seed of the permutations.

    Returns
    -------
    torch.Tensor, shape (players, ...), float64
        They sum to the value of all players less that of none.

    Notes
    -----
    References: Shapley, A Value for n-Person Games (1953); antithetic sampling, Mitchell et al., Sampling
    Permutations for Shapley Value Estimation (arXiv 2104.12199).
    """
    weights = exact_weights(players) if players <= EXACT else sampled_weights(players, permutations, seed)
    coalitions = list(dict.fromkeys(itertools.chain.from_iterable(weights)))
    place = {coalition: number for number, coalition in enumerate(coalitions)}
    values = game(coalitions).double()
    shares = torch.zeros(players, len(coalitions), dtype=torch.float64, device=values.device)
    for player, own in enumerate(weights):
        for coalition, weight in own.items():
            shares[player, place[coalition]] += weight
    return torch.tensordot(shares, values, dims=1)


def exact_weights(players: int) -> list[dict[Coalition, float]]:
    """Return, for each player, the weight of each coalition's value in its Shapley value."""
    found = []
    for player in range(players):
        others = [each for each in range(players) if each != player]
        own: dict[Coalition, float] = {}
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for chosen in itertools.combinations(others, size):
                own[frozenset(chosen) | {player}] = weight
                own[frozenset(chosen)] = -weight
        found.append(own)
    return found


def sampled_weights(players: int, permutations: int, seed: int) -> list[dict[Coalition, float]]:
    """Return the weights from random orders, each followed by its reverse."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(players) for _ in range(permutations // 2)]
    found: list[dict[Coalition, float]] = [{} for _ in range(players)]
    for order in itertools.chain.from_iterable((one, one[::-1]) for one in drawn):
        before: Coalition = frozenset()
        for player in order.tolist():
            after = before | {player}
            own = found[player]
            own[after] = own.get(after, 0.0) + 1 / (2 * len(drawn))
            own[before] = own.get(before, 0.0) - 1 / (2 * len(drawn))
            before = after
    return found
