"""Faithfulness: closed forms of planted games, and the games of a tiny model against literal predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_linear import linear_texts, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from attnviz.attribution import deletion_insertion, infidelity, random_deletion_insertion
from attnviz.attribution.players import players_of
from attnviz.attribution.texts import energy
from attnviz.errors import ArgumentError, MapsError


class Planted:
    """A game whose players add known values, relative to their sum."""

    def __init__(self, values, constant=None):
        self.values, self.constant = np.asarray(values, dtype=float), constant
        self.players = [f"player {number}" for number in range(len(self.values))]
        self.asked = 0

    def __call__(self, coalitions):
        self.asked += len(coalitions)
        if self.constant is not None:
            return torch.full((len(coalitions),), self.constant, dtype=torch.float64)
        return torch.tensor([self.values[sorted(one)].sum() for one in coalitions]) / self.values.sum()

    def random_scores(self, generator):
        return generator.permutation(len(self.values)).astype(float)


positive = st.lists(st.floats(0.01, 10), min_size=1, max_size=7)


@settings(max_examples=40)
@given(positive)
def test_areas_of_an_additive_game_have_a_closed_form(values):
    """A player of rank r, from 0, is there for r + 1/2 of the n steps of deletion, and the rest of insertion."""
    found = deletion_insertion(Planted(values), values)
    ranked, count = np.sort(values)[::-1], len(values)
    literal = (ranked * (np.arange(count) + 0.5)).sum() / count / np.sum(values)
    assert found.deletion.area == pytest.approx(literal)
    assert found.insertion.area == pytest.approx(1 - literal)
    assert found.score == pytest.approx(1 - 2 * literal)
    np.testing.assert_allclose(found.deletion.values[[0, -1]], [1, 0], atol=1e-12)


@settings(max_examples=40)
@given(positive, st.integers(0, 99))
def test_no_order_beats_the_true_one_and_reversed_scores_swap_the_curves(values, seed):
    game = Planted(values)
    best, worst = deletion_insertion(game, values), deletion_insertion(game, -np.asarray(values))
    other = deletion_insertion(game, game.random_scores(np.random.default_rng(seed)))
    assert worst.score - 1e-12 <= other.score <= best.score + 1e-12
    # Keeping the k best is deleting all but the k best.
    np.testing.assert_allclose(other.insertion.values, 1 - other.deletion.values, atol=1e-12)


def test_random_orders_have_no_score_on_average_and_repeat():
    game = Planted([5.0, 1.0, 3.0, 0.5])
    found = random_deletion_insertion(game, orders=400, seed=1)
    assert abs(found.score) < 0.05
    np.testing.assert_allclose(found.deletion.values, 1 - found.deletion.fractions, atol=0.05)
    again = random_deletion_insertion(game, orders=400, seed=1)
    np.testing.assert_array_equal(found.deletion.values, again.deletion.values)
    assert found.order == ()


def test_fractions_choose_points_and_ties_keep_the_order():
    found = deletion_insertion(Planted(np.ones(10)), np.zeros(10), fractions=(0, 0.25, 1))
    np.testing.assert_allclose(found.deletion.fractions, [0, 0.2, 1])
    np.testing.assert_allclose(found.insertion.values, [0, 0.2, 1])
    assert found.order == tuple(f"player {number}" for number in range(10))


@settings(max_examples=20)
@given(positive, st.floats(0.1, 100))
def test_infidelity_of_true_scores_is_0_in_any_unit(values, unit):
    assert infidelity(Planted(values), unit * np.asarray(values)) == pytest.approx(0, abs=1e-10)


@settings(max_examples=20)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(-2, 2))
def test_a_constant_model_has_infidelity_0(scores, constant):
    assert infidelity(Planted(scores, constant), scores) == pytest.approx(0, abs=1e-12)


def test_infidelity_vs_a_literal_mean_of_squares():
    """The scale that fits best is the least-squares one."""
    values, scores = np.array([4.0, 1.0, 2.0]), np.array([1.0, 2.0, 0.5])
    game = Planted(values)
    found = infidelity(game, scores, n_perturb_samples=500, seed=3)
    out = np.random.default_rng(3).integers(0, 2, size=(500, 3))
    change, said = out @ values / values.sum(), out @ scores
    scale = (said @ change) / (said @ said)
    assert found == pytest.approx(np.mean((scale * said - change) ** 2), rel=1e-6)
    assert found > 0.01
    # Scores of 0 say nothing: what is left is the mean square of the change.
    nothing = infidelity(game, np.zeros(3), n_perturb_samples=500, seed=3)
    assert nothing == pytest.approx(np.mean(change**2), rel=1e-6)


def test_scores_and_fractions_that_do_not_fit_are_refused():
    game = Planted([1.0, 2.0])
    for scores in ([1.0], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(MapsError, match="one finite score for each of the 2 players"):
            deletion_insertion(game, scores)
        with pytest.raises(MapsError, match="one finite score for each of the 2 players"):
            infidelity(game, scores)
    for fractions in ((0, 0.5), (0.1, 1), (0, 0.5, 0.5, 1), (1,)):
        with pytest.raises(ArgumentError, match="ascend from 0 to 1"):
            deletion_insertion(game, [1.0, 2.0], fractions=fractions)
    with pytest.raises(ArgumentError, match="fractions is 'all'"):
        deletion_insertion(game, [1.0, 2.0], fractions="all")
    with pytest.raises(ArgumentError, match="orders"):
        random_deletion_insertion(game, orders=0)


def test_the_words_of_a_linear_denoiser_with_orthogonal_parts_have_areas_in_closed_form():
    """The energy |sum of a_w|^2 of orthogonal a_w is a sum: the game of guidance is additive."""
    texts = linear_texts()
    texts_players = players_of(texts.tokens)
    weight = torch.zeros_like(texts.pipe.unet.weight)
    shares = [3.0, 0.5, 2.0, 1.0, 0.25, 4.0]
    for number, player in enumerate(texts_players):  # each word acts in a cell of its own
        weight[player.positions[0], 0].view(4, -1)[:, number] = shares[number]
    texts.pipe.unet.weight = weight
    texts.null.zero_()
    texts.caption.fill_(1.0)

    class Words:
        players = tuple(player.text for player in texts_players)

        def __call__(self, coalitions):
            states = torch.zeros(len(coalitions), *texts.caption.shape[1:])
            for state, kept in zip(states, coalitions, strict=True):
                state[[at for each in kept for at in texts_players[each].positions]] = 1.0
            null = texts.predictions(samples(), 200, texts.null, size=8)
            found = energy(texts.predictions(samples(), 200, states, size=8) - null).sum((1, 2)).double()
            return found / (4 * np.square(shares).sum())

    ranked = np.sort(np.square(shares))[::-1]
    literal = (ranked * (np.arange(6) + 0.5)).sum() / 6 / ranked.sum()
    assert deletion_insertion(Words(), shares).deletion.area == pytest.approx(literal, rel=1e-4)
