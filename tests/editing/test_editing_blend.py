"""The mask of a local blend, on planted maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnviz.capture import CapturedLayer
from attnviz.editing.blend import blend_mask

SIZE = (5, 9)


def layer(heats, *, tokens=3):
    """Attention of source and target; `heats` gives {(prompt, token): (rows, columns)}, and the rest is 0."""
    attention = np.zeros((2, 1, tokens, *np.shape(next(iter(heats.values())))), dtype=np.float32)
    for (prompt, token), heat in heats.items():
        attention[prompt, 0, token] = heat
    dims = ("prompt", "image", "token", "row", "column")
    return CapturedLayer(attention, dims, 4, "down_blocks.0.attentions.0.transformer_blocks.0.attn2")


def points(values, size=SIZE):
    heat = np.zeros(size)
    for place, value in values.items():
        heat[place] = value
    return heat


def block(*places, size=SIZE):
    """Cells of which a neighbour, also a diagonal one, or the cell itself is among the places."""
    rows, columns = np.indices(size)
    return np.any([np.maximum(abs(rows - row), abs(columns - column)) <= 1 for row, column in places], axis=0)


def masked(heat, columns=((1,), ()), threshold=0.3, prompt=0):
    mask = blend_mask({"one": layer({(prompt, 1): heat})}, columns, np.shape(heat), threshold)
    assert mask.dtype == torch.bool
    return mask.numpy()


@pytest.mark.parametrize("place", [(2, 4), (0, 0), (4, 8), (1, 8)])
def test_one_attended_cell_edits_its_neighbours_too(place):
    np.testing.assert_array_equal(masked(points({place: 0.8})), block(place))


@pytest.mark.parametrize("scale", [1.0, 2.0**-10])  # attention is spread over many cells: a share, not a level
def test_the_threshold_is_a_share_of_the_maximum_and_is_to_be_exceeded(scale):
    heat = scale * points({(0, 1): 1.0, (2, 4): 0.5, (4, 7): 0.25})
    np.testing.assert_array_equal(masked(heat, threshold=0.5), block((0, 1)))
    np.testing.assert_array_equal(masked(heat, threshold=0.49), block((0, 1), (2, 4)))
    np.testing.assert_array_equal(masked(heat, threshold=0.0), block((0, 1), (2, 4), (4, 7)))


def test_without_attention_nothing_is_edited():
    for threshold in (0.0, 0.3):
        assert not masked(np.zeros(SIZE), threshold=threshold).any()


def test_a_negative_map_edits_nothing_of_its_own():
    """Re-weighting by -2 makes the target's map negative: what is edited is where the source has the word."""
    heat = points({(1, 2): 0.5, (4, 7): 0.4})
    for threshold in (0.0, 0.3):
        for negative in (-2 * heat, -2 * heat - 0.1, np.where(heat > 0, -2 * heat, 0.0)):
            assert not masked(negative, ((), (1,)), threshold, prompt=1).any()
            both = layer({(0, 1): heat, (1, 1): negative})
            mask = blend_mask({"one": both}, ((1,), (1,)), SIZE, threshold)
            np.testing.assert_array_equal(mask, block((1, 2), (4, 7)))


def test_what_the_source_or_the_target_attends_to_is_edited():
    both = layer({(0, 1): points({(1, 2): 1.0}), (1, 2): points({(3, 7): 1e-3}), (1, 0): np.ones(SIZE)})
    expected = {((1,), (2,)): block((1, 2), (3, 7)), ((1,), ()): block((1, 2)), ((), (2,)): block((3, 7))}
    for columns, cells in expected.items():
        np.testing.assert_array_equal(blend_mask({"one": both}, columns, SIZE, 0.3), cells)


def test_neighbours_are_those_of_the_layers_own_grid():
    """A coarse cell and its neighbours cover 9 x 9 latents, whose corners have 4/9 and whose surroundings 1/3."""
    coarse = layer({(0, 1): points({(2, 4): 1.0})})
    mask = blend_mask({"coarse": coarse}, ((1,), ()), (15, 27), 0.4).numpy()
    np.testing.assert_array_equal(mask, np.kron(block((2, 4)), np.ones((3, 3), dtype=bool)))
