"""Narrowing maps."""

from __future__ import annotations

import numpy as np
import pytest
from maps.maps_synthetic import PROMPT, SMALL, captured, make, table

from attnviz.errors import MapsError


def test_layers_by_any_name_keep_the_runs_order():
    maps = make()
    narrowed = maps.select(layers=["up.1.0", "down_blocks.0.attentions.0"])
    assert narrowed.layers == ["down_blocks.0.attentions.0", "up_blocks.1.attentions.0"]
    assert maps.select(layers="mid.0").layers == ["mid_block.attentions.0"]
    assert maps.layers == list(SMALL)


def test_the_mean_is_over_the_layers_selected():
    layers = captured(SMALL)
    names = ["down_blocks.1.attentions.0", "mid_block.attentions.0"]
    narrowed = make(layers).select(layers=names).heatmap("dog")
    assert narrowed.shape == (3, 5)
    expected = make({name: layers[name] for name in names}).heatmap("dog")
    np.testing.assert_array_equal(narrowed, expected)


def test_steps_and_heads_narrow_what_is_averaged():
    layers = captured(SMALL, steps=3, heads=4)
    maps = make(layers)
    narrowed = maps.select(steps=[0, 2], heads=3)
    attention = layers["mid_block.attentions.0"].attention
    expected = attention[0, 0, [0, 2], 3, 2, ::-1].astype(float).mean(axis=0)
    np.testing.assert_allclose(narrowed.heatmap("dog", readout="mid.0"), expected, rtol=1e-6)
    assert narrowed.timesteps == [981.0, 1.0]
    assert narrowed["mid.0"]["step"].to_numpy().tolist() == [0, 2]
    again = narrowed.select(steps=2)
    assert again.timesteps == [1.0]
    np.testing.assert_array_equal(
        again.heatmap("dog", readout="mid.0"), maps.select(steps=[2], heads=[3]).heatmap("dog", readout="mid.0")
    )


def test_steps_keep_the_runs_order_whatever_order_is_asked_for():
    layers = captured(SMALL, steps=3)
    picked = make(layers).select(steps=[2, 0])
    assert picked.timesteps == [981.0, 1.0]
    for name in SMALL:
        assert picked[name]["step"].to_numpy().tolist() == [0, 2]
        assert picked[name]["timestep"].to_numpy().tolist() == [981.0, 1.0]
        expected = layers[name].attention[:, :, [0, 2]][..., ::-1, :]
        np.testing.assert_array_equal(picked[name], expected)


def test_arrays_are_shared_where_nothing_is_picked_out():
    maps = make()
    same = maps.select(layers=maps.layers)
    assert np.shares_memory(same["mid.0"].to_numpy(), maps["mid.0"].to_numpy())


def test_a_selection_of_an_encoder_keeps_its_tokens_only():
    layers = captured(SMALL, tokens=32)
    maps = make(layers, tokens=[table(PROMPT, encoders=2)], positions=range(32))
    second = maps.select(encoder=1)
    assert second.positions.tolist() == list(range(16, 32))
    assert second.encoder == 1
    assert [word.text for word in second.occurrences()] == maps.words
    assert second.token_heatmap("start").attrs["positions"] == [16]
    assert second.heatmap("dog").attrs["positions"] == [18]
    with pytest.raises(MapsError, match="available encoders: 0, 1"):
        maps.select(encoder=2)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"layers": "down.7.0"}, r"no layer 'down\.7\.0'.*down\.0\.0"),
        ({"layers": []}, "selects nothing"),
        ({"steps": [3]}, "no step 3; it has 0-2"),
        ({"steps": [0, 0]}, "duplicate"),
        ({"steps": [-1]}, "no step -1"),
        ({"steps": [0.5]}, "whole numbers"),
        ({"steps": True}, "whole numbers"),
        ({"steps": []}, "selects nothing"),
        ({"heads": 4}, "no head 4; it has 0-3"),
        ({"branch": "left"}, "unconditional, conditional"),
        ({"branch": "unconditional"}, "Only the conditional branch"),
        ({"encoder": 1}, "available encoders: 0"),
    ],
)
def test_what_is_not_there_is_refused(selection, words):
    with pytest.raises(MapsError, match=words):
        make(captured(SMALL, steps=3, heads=4)).select(**selection)


@pytest.mark.parametrize("axis", ["step", "head"])
def test_a_summed_out_axis_says_how_to_keep_it(axis):
    with pytest.raises(MapsError, match=rf"keep=\('{axis}',\)"):
        make().select(**{f"{axis}s": [0]})


def test_selecting_the_branch_that_is_stored_changes_nothing():
    maps = make()
    np.testing.assert_array_equal(maps.select(branch="conditional").heatmap("dog"), maps.heatmap("dog"))


def test_two_layers_of_one_short_name_need_the_full_one():
    layers = captured({"down_blocks.0.attentions.0": (5, 9), "down_blocks.0.motion.0": (5, 9)})
    maps = make(layers)
    with pytest.raises(MapsError, match="matches several"):
        maps["down.0.0"]
    assert maps["down_blocks.0.motion.0"].attrs["layer"] == "down_blocks.0.motion.0"
