"""Attribution against closed forms of a linear denoiser, against captum, and the axioms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from attribution_linear import CELLS, KEYS, linear_texts, samples
from captum.attr import ShapleyValues
from hypothesis import given, settings
from hypothesis import strategies as st

from attnviz.attribution.batches import in_batches
from attnviz.attribution.gradients import GradientShap, IntegratedGradients, Path, completeness_error
from attnviz.attribution.players import players_of, without
from attnviz.attribution.shapley_values import EXACT, exact_weights, sampled_weights, shapley_values
from attnviz.attribution.texts import energy
from attnviz.errors import CaptureError, MemoryBudgetError, PromptError
from attnviz.testing import example_maps

CAPTION = "a dog barks, then rain falls"
POSITIONS = list(range(9))


def by_key(texts):
    """What each key adds to the prediction, beside the null text: (keys, channels, rows, columns)."""
    return torch.einsum("kw,kwcij->kcij", (texts.caption - texts.null)[0], texts.pipe.unet.weight)


def path_of(texts, target="guidance", size=32):
    return Path(texts, POSITIONS, texts.null, samples(), 200, target=target, size=size)


# Integrated gradients --------------------------------------------------------------------------------


def test_integrated_gradients_of_a_linear_denoiser_have_a_closed_form():
    """The energy |sum of a_k|^2 is quadratic: the share of key k is a_k . (sum of a)."""
    texts = linear_texts()
    found = IntegratedGradients(texts.pipe, n_steps=1)._attributed(path_of(texts), 1)
    added = by_key(texts)
    literal = (added * added.sum(0)).sum(1)
    torch.testing.assert_close(found.maps[:-1], literal[POSITIONS], rtol=1e-4, atol=1e-3)
    rest = [key for key in range(KEYS) if key not in POSITIONS]
    torch.testing.assert_close(found.maps[-1], literal[rest].sum(0), rtol=1e-4, atol=1e-3)
    assert found.error < 1e-5
    assert found.steps == 1


def test_the_energy_of_the_prediction_has_one_too():
    """|s + sum of b_k|^2, from the null text: the share of key k is d_k . (s + null + half of all d), twice."""
    texts = linear_texts()
    path = path_of(texts, "prediction")
    found = IntegratedGradients(texts.pipe, n_steps=2)._attributed(path, 1)
    added = by_key(texts)
    start = texts.predict(samples(), 200, texts.null).mean(0)
    literal = (added * (2 * start + added.sum(0))).sum(1)
    torch.testing.assert_close(found.maps[:-1], literal[POSITIONS], rtol=1e-4, atol=1e-3)


def test_steps_are_doubled_until_the_sum_is_complete():
    texts = linear_texts(bend=lambda x: torch.sin(4 * x))
    path = path_of(texts)
    found = IntegratedGradients(texts.pipe, n_steps=1)._attributed(path, 1)
    assert found.steps > 1
    assert found.error <= 0.01
    change = path(torch.ones(1, path.gates, 1, 1), torch.zeros(1, dtype=torch.long))[0]
    assert completeness_error(found.maps, change) == pytest.approx(found.error, abs=1e-6)
    assert found.delta == pytest.approx(float(found.maps.sum() - change.sum()), abs=0.02 * float(change.sum()))


def test_derivatives_in_forward_mode_vs_backward_and_batches_of_one():
    texts = linear_texts(bend=torch.tanh)
    path = path_of(texts)
    gates = torch.rand(3, path.gates, 1, 1, generator=torch.Generator().manual_seed(3))
    of = torch.zeros(3, dtype=torch.long)
    (forward,) = path.derivatives(path, (gates,), None, (of,))
    (one_by_one,) = path_of(texts, size=1).derivatives(path, (gates,), None, (of,))
    torch.testing.assert_close(forward, one_by_one, rtol=1e-5, atol=1e-4)
    gates.requires_grad_()
    cells = path(gates, of)
    for row, column in itertools.product(*map(range, CELLS)):
        (backward,) = torch.autograd.grad(cells[:, row, column].sum(), gates, retain_graph=True)
        torch.testing.assert_close(forward[..., row, column], backward[..., 0, 0], rtol=1e-4, atol=1e-4)


def test_gradient_shap_comes_close_to_the_closed_form_and_repeats():
    texts = linear_texts()
    method = GradientShap(texts.pipe, n_samples=400, sample_seed=3)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    found = method._attributed(path_of(texts), 1)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002
    added = by_key(texts)
    literal = (added * added.sum(0)).sum(1)[POSITIONS]
    assert float((found.maps[:-1] - literal).abs().sum() / literal.abs().sum()) < 0.1
    assert torch.equal(method._attributed(path_of(texts), 1).maps, found.maps)
    assert 0 < found.error < 0.1


# Shapley ---------------------------------------------------------------------------------------------


def guidance_game(texts, players):
    """The guidance energy of coalitions of players, keys of the others replaced by the null text's."""

    def game(coalitions):
        removed = [[players[each] for each in range(len(players)) if each not in one] for one in coalitions]
        states = texts.null.repeat(len(removed), 1, 1)
        for state, out in zip(states, removed, strict=True):
            kept = [at for player in players if player not in out for at in player.positions]
            state[kept] = texts.caption[0, kept]
        null = texts.predictions(samples(), 200, texts.null, size=8)
        return energy(texts.predictions(samples(), 200, states, size=8) - null)

    return game


def test_shapley_of_a_linear_denoiser_has_a_closed_form():
    """For |sum of a_w|^2, the value of word w is a_w . (sum of a)."""
    texts = linear_texts()
    players = players_of(texts.tokens)
    values = shapley_values(guidance_game(texts, players), len(players), permutations=2, seed=0)
    added = by_key(texts)
    words = torch.stack([added[list(player.positions)].sum(0) for player in players])
    torch.testing.assert_close(values.float(), (words * words.sum(0)).sum(1), rtol=1e-4, atol=1e-3)


def test_shapley_equals_captums_on_a_small_case():
    texts = linear_texts(bend=torch.tanh)
    players = players_of(texts.tokens, ["a dog barks", "then rain"])
    game = guidance_game(texts, players)
    assert len(players) == 3

    def of_gates(gates):
        return game([frozenset(np.flatnonzero(row).tolist()) for row in gates.numpy()])

    def of_cell(gates, row, column):
        return of_gates(gates)[:, row, column]

    values = shapley_values(game, 3, permutations=2, seed=0)
    for row, column in [(0, 0), (1, 3)]:
        theirs = ShapleyValues(of_cell).attribute(torch.ones(1, 3), additional_forward_args=(row, column))
        torch.testing.assert_close(values[:, row, column].float(), theirs[0], rtol=1e-4, atol=1e-4)


def table_game(seed, players):
    """A game of arbitrary values."""
    values = {}

    def game(coalitions):
        rng = np.random.default_rng(seed)
        for size in range(players + 1):
            for chosen in itertools.combinations(range(players), size):
                values[frozenset(chosen)] = rng.normal(size=2)
        return torch.tensor(np.stack([values[each] for each in coalitions]))

    return game, values


@settings(max_examples=20)
@given(st.integers(1, EXACT), st.integers(0, 99))
def test_exact_values_are_efficient_and_the_mean_over_all_orders(players, seed):
    game, values = table_game(seed, players)
    found = shapley_values(game, players, permutations=2, seed=0).numpy()
    everyone, nobody = values[frozenset(range(players))], values[frozenset()]
    np.testing.assert_allclose(found.sum(0), everyone - nobody, atol=1e-10)
    if players > 4:
        return
    literal = np.zeros((players, 2))
    for order in itertools.permutations(range(players)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            literal[player] += values[before | {player}] - values[before]
    np.testing.assert_allclose(found, literal / math.factorial(players), atol=1e-10)


@pytest.mark.parametrize("weights", [exact_weights(5), sampled_weights(9, 6, seed=2)])
def test_each_players_weights_are_of_marginal_contributions(weights):
    for player, own in enumerate(weights):
        assert sum(own.values()) == pytest.approx(0)
        assert sum(weight for one, weight in own.items() if player in one) == pytest.approx(1)
        assert all((weight > 0) == (player in one) for one, weight in own.items())


def test_sampled_values_are_efficient_symmetric_for_pairs_and_come_close():
    """A game of pairs: an order and its reverse give the exact value of every pair game."""
    players = 8
    pairs = np.random.default_rng(0).normal(size=(players, players))
    pairs = (pairs + pairs.T) / 2

    def game(coalitions):
        return torch.tensor([pairs[np.ix_(sorted(one), sorted(one))].sum() if one else 0.0 for one in coalitions])

    found = shapley_values(game, players, permutations=2, seed=5).numpy()
    np.testing.assert_allclose(found, pairs.sum(0), atol=1e-10)


def test_symmetric_players_share_alike_and_a_dummy_gets_nothing():
    texts = linear_texts()
    players = players_of(texts.tokens)
    first, second, dummy = (player.positions[0] for player in players[:3])
    texts.pipe.unet.weight[second] = texts.pipe.unet.weight[first]
    texts.caption[0, second], texts.null[0, second] = texts.caption[0, first], texts.null[0, first]
    texts.caption[0, dummy] = texts.null[0, dummy]
    values = shapley_values(guidance_game(texts, players), len(players), permutations=2, seed=0)
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-3)
    assert float(values[2].abs().max()) < 1e-4
    assert float(values[3].abs().max()) > 0.1


# Words, batches --------------------------------------------------------------------------------------


def test_players_are_words_or_phrases_and_each_word_belongs_to_one():
    tokens = example_maps().tokens[0]
    assert [player.text for player in players_of(tokens)] == ["a", "dog", "barks", "then", "rain", "falls"]
    grouped = players_of(tokens, ["rain falls", (2, 11)])
    assert [player.text for player in grouped] == ["a", "dog barks", "then", "rain falls"]
    assert grouped[1].positions == (2, 3)
    with pytest.raises(PromptError, match="unicorn"):
        players_of(tokens, ["unicorn"])
    with pytest.raises(PromptError, match="shares the word 'dog'"):
        players_of(tokens, ["a dog", "dog barks"])


@pytest.mark.parametrize(
    ("left", "text"),
    [
        ([], CAPTION),
        (["a"], "dog barks, then rain falls"),
        (["barks"], "a dog, then rain falls"),
        (["a", "dog", "barks"], "then rain falls"),
        (["falls"], "a dog barks, then rain"),
        (["a", "dog", "barks", "then", "rain", "falls"], ""),
    ],
)
def test_a_caption_without_words_is_tidy(left, text):
    players = players_of(example_maps().tokens[0])
    assert without(CAPTION, [player for player in players if player.text in left]) == text


def test_a_batch_that_does_not_fit_is_split_and_not_lost():
    tried = []

    def compute(some):
        tried.append(some.stop - some.start)
        if tried[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.arange(20.0)[some]

    assert torch.equal(in_batches(compute, 11, 11), torch.arange(11.0))
    assert tried == [11, 5, 2, 2, 2, 2, 2, 1]


def test_a_row_that_does_not_fit_and_other_errors_are_said():
    def full(some):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    def broken(some):
        raise RuntimeError("sizes do not match")

    with pytest.raises(MemoryBudgetError, match="single row"):
        in_batches(full, 4, 4)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        in_batches(broken, 4, 4)


def test_steps_that_are_no_number_are_refused():
    texts = linear_texts()
    texts.pipe.unet.register_parameter("p", torch.nn.Parameter(torch.zeros(1)))
    for wrong in (0, 2.5, True, 10**9):
        with pytest.raises(CaptureError, match="n_steps"):
            IntegratedGradients(texts.pipe, n_steps=wrong).check(frozenset())
