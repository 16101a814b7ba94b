"""Labelling captured attention: axes, coordinates, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from maps.maps_synthetic import GRID, PROMPT, SMALL, captured, make, table

from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, LayerAttention

FINEST = "down_blocks.0.attentions.0"


def test_levels_are_ordered_by_cells_and_not_by_rows():
    maps = make(captured(SMALL), levels=[(2, 40), (40, 1), (6, 3)])
    cells = [rows * columns for rows, columns in maps.tree.attrs["levels"]]
    assert maps.tree.attrs["levels"][:2] == [[2, 40], [5, 9]]
    assert cells == sorted(cells, reverse=True)


def test_dims_are_always_in_the_same_order():
    layers = captured(SMALL, prompts=2, images=3, steps=2, heads=4, both=True)
    maps = make(layers, tokens=[table(PROMPT), table("wind")], timesteps=[9.0, 9.0])
    for name, (rows, columns) in SMALL.items():
        assert maps[name].dims == ("branch", "prompt", "image", "step", "head", "token", "freq", "time")
        assert maps[name].shape == (2, 2, 3, 2, 4, 16, rows, columns)
        assert maps[name].dtype == np.float32
    summed = make()
    assert summed[FINEST].dims == ("prompt", "image", "token", "freq", "time")


def test_rows_are_flipped_once_so_that_frequency_ascends():
    layers = captured(SMALL)
    maps = make(layers)
    for name, layer in layers.items():
        np.testing.assert_array_equal(maps[name].to_numpy(), layer.attention[..., ::-1, :])
        assert np.all(np.diff(maps[name]["freq"]) > 0)
        assert maps[name].attrs["stride"] == list(layer.stride)
    finest = maps[FINEST]  # its cells divide the spectrogram evenly; of the others see test_maps_strides
    np.testing.assert_array_equal(finest["freq"], GRID.freq(5))
    np.testing.assert_array_equal(finest["time"], GRID.time(9))
    np.testing.assert_array_equal(finest["padding"], GRID.padding(9))
    heat = maps.heatmap("dog", readout=FINEST)
    assert heat.sel(freq=slice(1000, 4000)).sizes["freq"] > 0


def test_coordinates_and_facts_travel_with_each_layer():
    layers = captured(SMALL, prompts=2, steps=3)
    maps = make(layers, tokens=[table(PROMPT), table("wind")], timesteps=[3.0, 3.0, 1.0])
    layer = maps["up.2.0"]
    assert layer.attrs["place"] == "up"
    assert layer.attrs["heads"] == 4
    assert layer.attrs["grid"] == [5, 9]
    assert layer["timestep"].to_numpy().tolist() == [3.0, 3.0, 1.0]
    assert layer["token_text"].sel(prompt=0).to_numpy().tolist()[:4] == ["<start>", "a", "dog", "bark"]
    assert layer["token_kind"].sel(prompt=1).to_numpy().tolist()[:4] == ["start", "text", "end", "padding"]
    assert maps.timesteps == [3.0, 3.0, 1.0]
    assert maps.words == ["a", "dog", "barks", "then", "rain", "falls"]
    assert maps.layers == list(SMALL)


def test_positions_need_not_start_at_zero():
    layers = captured(SMALL, tokens=2)
    maps = make(layers, positions=[2, 5])
    layer = maps[FINEST]
    assert layer["token"].to_numpy().tolist() == [2, 5]
    assert layer["token_text"].to_numpy().tolist() == [["dog", ","]]


def test_captured_arrays_are_copied():
    layers = captured(SMALL)
    maps = make(layers)
    before = maps.heatmap("dog").copy()
    for layer in layers.values():
        layer.attention[:] = 7
    np.testing.assert_array_equal(maps.heatmap("dog"), before)


def test_a_lazy_mapping_is_looked_up_once_per_layer():
    layers, seen = captured(SMALL), []

    class Lazy(dict):
        def __getitem__(self, name):
            seen.append(name)
            return super().__getitem__(name)

    make(Lazy(layers))
    assert seen == list(SMALL)


def test_no_group_above_the_layers_has_coordinates_to_inherit():
    maps = make(spectrogram=np.zeros((1, 1, 40, 72)))
    assert not maps.tree.coords
    assert not maps.tree.children["layers"].coords
    assert maps.spectrogram is not None
    assert maps.spectrogram.dims == ("prompt", "image", "freq", "time")


def broken(change) -> dict[str, LayerAttention]:
    layers = captured(SMALL)
    layers[FINEST] = change(layers[FINEST])
    return layers


def with_value(value):
    def change(layer):
        attention = layer.attention.copy()
        attention[0, 0, 2, 1, 1] = value
        return dataclasses.replace(layer, attention=attention)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_value(np.nan), "NaN"),
        (with_value(np.inf), "NaN or infinite"),
        (with_value(-np.inf), "NaN or infinite"),
        (lambda one: dataclasses.replace(one, dims=("image", "prompt", "token", "row", "column")), "order"),
        (lambda one: dataclasses.replace(one, dims=("prompt", "image", "token", "row")), "order"),
        (lambda one: dataclasses.replace(one, attention=one.attention[0]), "axes"),
        (lambda one: dataclasses.replace(one, attention=one.attention[:, :, :5]), "token axis has 5"),
        (lambda one: dataclasses.replace(one, attention=one.attention[..., :0]), "empty"),
        (lambda one: dataclasses.replace(one, attention=np.repeat(one.attention, 2, 0)), "prompt axis has 2"),
        (lambda one: dataclasses.replace(one, attention=np.repeat(one.attention, 2, 1)), "image"),
        (lambda one: dataclasses.replace(one, attention=one.attention.astype(int)), "floats"),
        (lambda one: dataclasses.replace(one, attention=one.attention.tolist()), "NumPy array"),
        (lambda one: dataclasses.replace(one, heads=0), "heads=0"),
    ],
)
def test_a_broken_layer_is_refused_by_name(change, words):
    with pytest.raises(MapsError, match=words) as caught:
        make(broken(change))
    if words != "image":  # there the first layer sets the rule and the next is named
        assert FINEST in str(caught.value)


def test_float64_that_overflows_float32_is_refused():
    with pytest.raises(MapsError, match=FINEST), np.errstate(over="ignore"):
        make(broken(lambda one: dataclasses.replace(one, attention=one.attention.astype(float) * 1e300)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": []}, "no token tables"),
        ({"tokens": [table(PROMPT)] * 2}, "prompt axis has 1 entries; expected 2"),
        ({"positions": range(15)}, "token axis has 16 entries; expected 15"),
        ({"positions": range(15, -1, -1)}, "ascending"),
        ({"positions": [0] * 16}, "ascending"),
        ({"positions": range(-1, 15)}, "ascending"),
        ({"positions": range(10, 26)}, "No token table contains"),
        ({"timesteps": []}, "timesteps"),
        ({"timesteps": [1.0, np.nan, 2.0]}, "timesteps"),
        ({"spectrogram": np.zeros((1, 1, 72, 40))}, "expected"),
        ({"spectrogram": np.full((1, 1, 40, 72), np.nan)}, "spectrogram contains NaN"),
        ({"provenance": {"model": object()}}, "JSON"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, words):
    with pytest.raises(MapsError, match=words):
        make(**changes)


def test_no_layers_and_impossible_names_are_refused():
    with pytest.raises(MapsError, match="nothing was captured"):
        make({})
    layer = captured(SMALL)[FINEST]
    with pytest.raises(MapsError, match="separates groups"):
        make({"down/0": layer})


def test_kept_axes_must_match_what_was_announced():
    with pytest.raises(MapsError, match="step axis has 2 entries; expected 3"):
        make(captured(SMALL, steps=2))
    layers = {name: dataclasses.replace(layer, heads=8) for name, layer in captured(SMALL, heads=4).items()}
    with pytest.raises(MapsError, match="head axis has 4 entries; expected 8"):
        make(layers)


def test_layers_may_differ_in_heads_but_not_in_what_was_kept():
    few, many = captured(SMALL, heads=2), captured(SMALL, heads=4)
    mixed = {name: (few if "mid" in name else many)[name] for name in SMALL}
    assert make(mixed)["mid.0"].sizes["head"] == 2
    mixed["mid_block.attentions.0"] = captured(SMALL)["mid_block.attentions.0"]
    with pytest.raises(MapsError, match="Were two runs mixed"):
        make(mixed)


def test_provenance_is_kept_as_plain_values_and_given_as_a_copy():
    maps = make(provenance={"seed": np.int64(3), "sizes": (1, 2), "nested": {"at": np.float32(0.5)}})
    assert maps.provenance == {"seed": 3, "sizes": [1, 2], "nested": {"at": 0.5}}
    maps.provenance["seed"] = 4
    assert maps.provenance["seed"] == 3


def test_a_tree_of_something_else_is_refused():
    import xarray as xr

    with pytest.raises(MapsError, match="does not contain maps"):
        AttentionMaps(xr.DataTree())
