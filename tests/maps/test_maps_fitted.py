"""Fitted readouts: application against a literal oracle, the file, and which readout a name means."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps.maps_synthetic import GRID, SMALL, captured, inside, make
from scipy.ndimage import map_coordinates

from attnviz import bundled
from attnviz.errors import AttnVizError, MapsError, OutputError
from attnviz.maps import AttentionMaps, FittedReadout, LayerAttention, ReadoutPart, settling

DOWN, MIDDLE = "down_blocks.0.attentions.0", "down_blocks.1.attentions.0"
MID, UP = "mid_block.attentions.0", "up_blocks.2.attentions.0"
TIMESTEPS = [981.0, 501.0, 1.0]
BARKS = [3, 4]  # "bark" and "s" are two tokens
OF_BUNDLED = {"model": "bundled", "dtype": "float32", "weights": {"unet": bundled.unet_digest()}}
WHOLE = FittedReadout((ReadoutPart(DOWN, 0.75), ReadoutPart(MIDDLE, 0.25)))
FINE = FittedReadout(
    (
        ReadoutPart(DOWN, 0.5, head=2, timesteps=(0, 600)),
        ReadoutPart(DOWN, 0.125, head=0),
        ReadoutPart(MIDDLE, 0.25, timesteps=(500, 982)),
        ReadoutPart(UP, 0.125),
    ),
    {"model": "tiny", "sources": ["7", "ü"]},
)


@pytest.fixture(scope="module")
def layers():
    return captured(SMALL, steps=3, heads=4)


@pytest.fixture(scope="module")
def maps(layers):
    return make(layers)


def by_hand(layers, readout, rows, columns, pool):
    """The rule, one part, cell and denoiser call after another; image orientation until the end."""
    total = np.zeros((rows, columns))
    for part in readout.parts:
        attention = layers[part.layer].attention[0, 0].astype(float)  # step, head, token, row, column
        first, last = part.timesteps or (-math.inf, math.inf)
        calls = [number for number, timestep in enumerate(TIMESTEPS) if first <= timestep < last]
        heads = range(4) if part.head is None else [part.head]
        tokens = [
            sum(attention[call, head, position] for call in calls for head in heads) / len(calls) / len(heads)
            for position in BARKS
        ]
        heat = {"mean": np.mean, "max": np.max}[pool](tokens, axis=0)
        stride = layers[part.layer].stride[0]
        heard = [column for column in range(heat.shape[1]) if (column + 0.5) * stride * 0.01 <= 0.6]
        heat = heat / heat[:, heard].mean()
        cell = 8.0 if rows == 5 else 1.0
        at_rows = (np.arange(rows) + 0.5) * cell / stride - 0.5
        at_columns = (np.arange(columns) + 0.5) * cell / stride - 0.5
        places = np.meshgrid(at_rows, at_columns, indexing="ij")
        within = map_coordinates(heat[:, heard], places, order=1, mode="nearest")
        beyond = map_coordinates(heat, places, order=1, mode="nearest")
        total += part.weight * np.where((np.arange(columns) + 0.5) * cell * 0.01 <= 0.6, within, beyond)
    return total[::-1]


@pytest.mark.parametrize("readout", [WHOLE, FINE], ids=["layers", "heads and timesteps"])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("grid", ["finest", "image"])
def test_weighted_maps_vs_by_hand(layers, maps, readout, pool, grid):
    heat = maps.heatmap("barks", readout=readout, pool=pool, grid=grid)
    rows, columns = (5, 9) if grid == "finest" else (GRID.height, GRID.width)
    np.testing.assert_allclose(heat, by_hand(layers, readout, rows, columns, pool), rtol=1e-6)
    assert heat.attrs["readout"] == readout.name
    assert heat.attrs["layers"] == ", ".join(readout.layers)
    assert heat.attrs["long_name"] == "times the phrase's own mean"


def test_the_grid_is_the_finest_of_the_layers_that_have_a_weight(maps):
    assert maps.heatmap("dog", readout=FittedReadout((ReadoutPart(MIDDLE, 1.0),))).shape == (3, 5)


def test_one_layer_is_that_layer_on_another_scale(maps):
    heat = maps.heatmap("barks", readout=FittedReadout((ReadoutPart(DOWN, 1.0),)))
    ratio = heat / maps.heatmap("barks", readout=DOWN)
    assert float(ratio.std()) < 1e-5 * float(ratio.mean())
    assert float(heat.values[:, ~heat["padding"].values].mean()) == pytest.approx(1.0, rel=1e-6)


def test_layers_alone_need_no_heads_or_steps(layers, maps):
    summed = {
        name: LayerAttention(
            layer.attention.mean(axis=(2, 3)), ("prompt", "image", "token", "row", "column"), 4, layer.stride
        )
        for name, layer in layers.items()
    }
    np.testing.assert_allclose(
        make(summed).heatmap("dog", readout=WHOLE), maps.heatmap("dog", readout=WHOLE), rtol=1e-5
    )


def test_how_much_a_layer_attends_in_all_takes_no_part(layers, maps):
    louder = dict(layers)
    louder[DOWN] = dataclasses.replace(layers[DOWN], attention=layers[DOWN].attention * np.float32(0.25))
    np.testing.assert_allclose(
        make(louder).heatmap("dog", readout=FINE), maps.heatmap("dog", readout=FINE), rtol=1e-5
    )


def test_padding_takes_no_part(layers, maps):
    changed = dict(layers)
    attention = layers[DOWN].attention.copy()
    attention[..., 8:] = 0.9  # of nine columns the last begins beyond the audio
    changed[DOWN] = dataclasses.replace(layers[DOWN], attention=attention)
    readout = FittedReadout((ReadoutPart(DOWN, 1.0, head=1),))
    np.testing.assert_array_equal(
        make(changed).activation("dog", readout=readout), maps.activation("dog", readout=readout)
    )


def test_a_range_holds_its_first_timestep_and_not_its_last(maps):
    one = maps.select(steps=1).heatmap("dog", readout=WHOLE)  # of timestep 501
    parts = tuple(dataclasses.replace(part, timesteps=(501, 981)) for part in WHOLE.parts)
    np.testing.assert_allclose(maps.heatmap("dog", readout=FittedReadout(parts)), one, rtol=1e-6)


def test_heads_are_meant_by_their_labels(maps):
    readout = FittedReadout((ReadoutPart(DOWN, 1.0, head=2),))
    narrowed = maps.select(heads=[2, 3])
    np.testing.assert_array_equal(narrowed.heatmap("dog", readout=readout), maps.heatmap("dog", readout=readout))


def test_a_map_of_zeros_stays_so(layers):
    nothing = {name: dataclasses.replace(layer, attention=layer.attention * 0) for name, layer in layers.items()}
    assert not make(nothing).heatmap("dog", readout=FINE).any()


def test_exports_name_it(maps, tmp_path):
    assert maps.to_dataframe(readout=FINE).attrs["readout"] == FINE.name
    maps.to_npz(tmp_path / "words.npz", readout=FINE)
    with np.load(tmp_path / "words.npz") as file:
        assert str(file["readout"]) == FINE.name


# ---- maps that lack something ----------------------------------------------------------------------------


def part(layer=DOWN, **of):
    return FittedReadout((ReadoutPart(layer, 1.0, **of),))


@pytest.mark.parametrize(
    ("readout", "kept", "message"),
    [
        (part("up_blocks.9.attentions.0"), {}, "uses up_blocks.9.attentions.0, but these maps contain down"),
        (part(head=1), {"steps": 3}, r"keep=\('head',\)"),
        (part(timesteps=(0, 100)), {"heads": 4}, r"keep=\('step',\)"),
        (part(head=4), {"heads": 4}, r"head 4 .* \[0, 1, 2, 3\]"),
        (part(timesteps=(100, 500)), {"steps": 3}, "timesteps 100 to 500 .* have 981, 501, 1"),
    ],
    ids=["layer", "head axis", "step axis", "head", "timestep"],
)
def test_what_the_maps_lack_is_named(readout, kept, message):
    with pytest.raises(MapsError, match=message):
        make(captured(SMALL, **kept)).heatmap("dog", readout=readout)


def test_a_narrowed_selection_is_named(maps):
    with pytest.raises(MapsError, match="was the selection narrowed"):
        maps.select(layers=DOWN).heatmap("dog", readout=WHOLE)
    with pytest.raises(MapsError, match=r"has the heads \[1\]"):
        maps.select(heads=1).heatmap("dog", readout=FINE)


def test_a_clip_shorter_than_half_a_column(layers):
    short = make(layers, grid=dataclasses.replace(GRID, audio_seconds=0.1))
    assert np.isfinite(short.heatmap("dog", readout=part(DOWN))).all()
    with pytest.raises(MapsError, match=r"No column of mid_block.attentions.0 contains audio.* 0.16 s"):
        short.heatmap("dog", readout=part(MID))


# ---- which one is meant ----------------------------------------------------------------------------------


def test_fitted_is_of_the_bundled_model(layers, tmp_path, monkeypatch):
    FINE.save(tmp_path / "readout.json")
    monkeypatch.setattr(settling, "BUNDLED", tmp_path / "readout.json")
    maps = make(layers, provenance=OF_BUNDLED)
    heat = maps.heatmap("dog", readout="fitted")
    np.testing.assert_array_equal(heat, maps.heatmap("dog", readout=FINE))
    assert heat.attrs["readout"] == FINE.name
    with pytest.raises(MapsError, match="these maps are of 'tiny'"):
        make(layers).heatmap("dog", readout="fitted")
    with pytest.raises(MapsError, match="these maps are of None"):
        make(layers, provenance={}).heatmap("dog", readout="fitted")
    for weights in ({"unet": "0" * 16}, {"vae": OF_BUNDLED["weights"]["unet"]}, None):
        with pytest.raises(MapsError, match="to the bundled model"):
            make(layers, provenance={**OF_BUNDLED, "weights": weights}).heatmap("dog", readout="fitted")


def test_fitted_where_none_ships(layers, tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "BUNDLED", tmp_path / "readout.json")
    with pytest.raises(MapsError, match="has no fitted readout"):
        make(layers, provenance=OF_BUNDLED).heatmap("dog", readout="fitted")


@pytest.mark.parametrize("given", [None, 3, WHOLE.parts[0]])
def test_neither_a_name_nor_a_readout(maps, given):
    with pytest.raises(MapsError, match=r"FittedReadout\.load"):
        maps.heatmap("dog", readout=given)


def test_an_unknown_name_lists_what_there_is(maps):
    with pytest.raises(MapsError, match="'fitted', 'sharp', a layer"):
        maps.heatmap("dog", readout="best")


# ---- the object and its file -----------------------------------------------------------------------------


def test_the_name_is_of_the_weights_alone():
    assert WHOLE.name == FittedReadout(list(WHOLE.parts), {"seed": 3}).name
    assert WHOLE.name != FittedReadout(tuple(reversed(WHOLE.parts))).name
    assert len({WHOLE, FINE, FittedReadout(WHOLE.parts)}) == 2


@pytest.mark.parametrize(
    ("parts", "provenance", "message"),
    [
        ((), {}, "one or more"),
        ((DOWN,), {}, "needs one or more ReadoutPart"),
        ((ReadoutPart(DOWN, 0.5),), {}, "sum to 0.5"),
        ((ReadoutPart(DOWN, 0.5), ReadoutPart(DOWN, 0.5)), {}, "is duplicated"),
        (WHOLE.parts, [], "provenance is a list"),
        (WHOLE.parts, {"when": object()}, "JSON"),
        (WHOLE.parts, {"score": math.nan}, "JSON"),
    ],
)
def test_what_is_no_readout(parts, provenance, message):
    with pytest.raises(MapsError, match=message):
        FittedReadout(parts, provenance)


@pytest.mark.parametrize(
    "of",
    [
        {"weight": 0}, {"weight": -0.1}, {"weight": 1.5}, {"weight": math.nan}, {"weight": "1"}, {"weight": True},
        {"head": -1}, {"head": True}, {"head": 1.0}, {"layer": ""}, {"layer": None}, {"timesteps": (5, 5)},
        {"timesteps": (9, 5)}, {"timesteps": (-1, 5)}, {"timesteps": (0, math.inf)}, {"timesteps": "ab"},
        {"timesteps": (1,)}, {"timesteps": 5}, {"weight": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_part(of):
    with pytest.raises(MapsError):
        ReadoutPart(**{"layer": DOWN, "weight": 1.0, **of})


def test_provenance_is_a_copy():
    given = {"clips": ["a.wav"]}
    readout = FittedReadout(WHOLE.parts, given)
    given["clips"].append("b.wav")
    assert readout.provenance == {"clips": ["a.wav"]}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8), st.text(max_size=6))
def test_a_file_gives_the_same_to_the_last_bit(tmp_path_factory, values, word):
    shares = np.array(values) / math.fsum(values)
    parts = tuple(
        ReadoutPart(f"{word}.{i}", float(share), i, (0.1 * i, i + 1 / 3)) for i, share in enumerate(shares)
    )
    readout = FittedReadout(parts, {"word": word, "value": values[0], word: None})
    path = tmp_path_factory.mktemp("readout") / "r.json"
    readout.save(path)
    again = FittedReadout.load(path)
    assert again == readout
    assert [one.weight.hex() for one in again.parts] == [one.weight.hex() for one in parts]
    assert again.name == readout.name


def test_saving_is_whole_or_not_at_all(tmp_path):
    FINE.save(tmp_path / "r.json")
    with pytest.raises(OutputError, match="exists"):
        WHOLE.save(tmp_path / "r.json")
    assert FittedReadout.load(tmp_path / "r.json") == FINE
    WHOLE.save(tmp_path / "r.json", overwrite=True)
    assert FittedReadout.load(tmp_path / "r.json") == WHOLE
    with pytest.raises(OutputError, match="no folder"):
        WHOLE.save(tmp_path / "none" / "r.json")
    assert inside(tmp_path) == ["r.json"]


def test_no_file(tmp_path):
    with pytest.raises(MapsError, match="is missing"):
        FittedReadout.load(tmp_path / "r.json")
    with pytest.raises(MapsError, match="cannot be read"):
        FittedReadout.load(tmp_path)


FILE = {
    "format": "attnviz readout",
    "version": 1,
    "parts": [{"layer": DOWN, "weight": 1.0, "head": None, "timesteps": [0.0, 9.5]}],
    "provenance": {},
}


def changed(**values):
    return {**FILE, **values}


def changed_part(**values):
    return changed(parts=[{**FILE["parts"][0], **values}])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "format"),
        (changed(format="attnviz maps"), "another kind of file"),
        (changed(version=2), "version is 2"),
        (changed(more=1), r"unknown: \['more'\]"),
        ({name: value for name, value in FILE.items() if name != "provenance"}, r"missing: \['provenance'\]"),
        (changed(parts={}), "parts is a dict"),
        (changed(parts=[]), "one or more"),
        (changed(parts=[3]), "part 0 is a int"),
        (changed(provenance=None), "provenance is a NoneType"),
        (changed_part(weights=1), r"unknown: \['weights'\]"),
        (changed_part(weight="1.0"), "finite number"),
        (changed_part(weight=0.9), "sum to 0.9"),
        (changed_part(weight=math.nan), "not JSON"),
        (changed_part(head=0.5), "head"),
        (changed_part(timesteps=[1, 2, 3]), "first, last"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path, values, message):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(values))
    with pytest.raises(MapsError, match=message) as caught:
        FittedReadout.load(path)
    assert str(path) in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=40)
    | VALUES.map(lambda values: json.dumps(values).encode())
    | st.tuples(st.sampled_from([*FILE]), VALUES).map(lambda one: json.dumps({**FILE, one[0]: one[1]}).encode())
    | st.tuples(st.sampled_from([*FILE["parts"][0]]), VALUES).map(
        lambda one: json.dumps(changed_part(**{one[0]: one[1]})).encode()
    )
)
def test_garbage_is_refused_by_our_own_errors(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("garbage") / "r.json"
    path.write_bytes(data)
    try:
        readout = FittedReadout.load(path)
    except AttnVizError:
        return
    assert math.isclose(sum(one.weight for one in readout.parts), 1.0)


def test_deep_nesting_is_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("[" * 100_000)
    with pytest.raises(MapsError, match="nests deeper"):
        FittedReadout.load(path)


def test_the_maps_file_keeps_what_a_readout_needs(maps, tmp_path):
    maps.save(tmp_path / "m.zarr")
    again = AttentionMaps.load(tmp_path / "m.zarr")
    np.testing.assert_array_equal(again.heatmap("dog", readout=FINE), maps.heatmap("dog", readout=FINE))
