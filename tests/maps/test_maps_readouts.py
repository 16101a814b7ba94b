"""Readouts against independent oracles, and the relations they must keep."""

from __future__ import annotations

import dataclasses

import librosa
import numpy as np
import pytest
import torch
from maps.maps_synthetic import GRID, PROMPT, SMALL, captured, make, sd_grids, stride_of, table
from scipy.ndimage import map_coordinates

from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError, PromptError
from attnviz.maps import AttentionMaps, LayerAttention, resize

DOG, BARKS = [2], [3, 4]  # key positions: "bark" and "s" are two tokens


# ---- oracles ---------------------------------------------------------------------------------------------


def bilinear_by_hand(
    image: np.ndarray, rows: int, columns: int, ratio: tuple[float, float] | None = None
) -> np.ndarray:
    """Linear interpolation between cell centres, the edge held: scipy's, at literal coordinates."""
    down, across = ratio or (image.shape[0] / rows, image.shape[1] / columns)
    at_rows = (np.arange(rows) + 0.5) * down - 0.5
    at_columns = (np.arange(columns) + 0.5) * across - 0.5
    return map_coordinates(
        image.astype(float), np.meshgrid(at_rows, at_columns, indexing="ij"), order=1, mode="nearest"
    )


def on_grid(layer: LayerAttention, image: np.ndarray, grid: SpectrogramGrid, cell: float, shape) -> np.ndarray:
    """A layer's map on cells of `cell` x `cell` of the spectrogram, image orientation, from its own centres.

    What is beyond the audio is read as it is; what is within is read without the columns beyond.
    """
    stride = layer.stride[0] / cell
    ratio = (1 / stride, 1 / stride)
    end = grid.seconds if grid.audio_seconds is None else grid.audio_seconds
    own = (np.arange(image.shape[1]) + 0.5) * layer.stride[1] * 0.01 <= end
    wanted = (np.arange(shape[1]) + 0.5) * cell * 0.01 <= end
    return np.where(wanted, bilinear_by_hand(image[:, own], *shape, ratio), bilinear_by_hand(image, *shape, ratio))


def mean_by_hand(
    layers: dict[str, LayerAttention], positions: list[int], rows: int, columns: int, cell: float = 8.0
) -> np.ndarray:
    """The mean of all layers on the captured arrays, image orientation; flipped at the very end."""
    total = np.zeros((rows, columns))
    for layer in layers.values():
        for position in positions:
            total += on_grid(layer, layer.attention[0, 0, position], GRID, cell, (rows, columns))
    return total[::-1] / len(layers) / len(positions)


def auffusion_by_hand(
    layers: dict[str, LayerAttention], positions: list[int], level: tuple[int, int]
) -> np.ndarray:
    """The authors' rule: heads of the down and up layers of one level, averaged; each token over its maximum."""
    maps = []
    for position in positions:
        heads = [
            layer.attention[0, 0, position]
            for name, layer in layers.items()
            if layer.attention.shape[-2:] == level and not name.startswith("mid")
        ]
        total = sum(one.astype(float) for one in heads) / len(heads)
        maps.append(total / total.max())
    return (sum(maps) / len(maps))[::-1]


# ---- oracle tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 9), (7, 3), (1, 1), (4, 16)])
@pytest.mark.parametrize("wanted", [(5, 9), (32, 128), (13, 29), (2, 3), (1, 1)])
def test_resize_vs_torch_and_vs_scipy(size, wanted):
    image = np.random.default_rng(0).random(size)
    ours = resize(image, wanted)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=wanted, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours, bilinear_by_hand(image, *wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("phrase", "positions"), [("dog", DOG), ("barks", BARKS), ("dog barks", DOG + BARKS)])
def test_mean_readout_vs_by_hand(phrase, positions):
    layers = captured(SMALL)
    heat = make(layers).heatmap(phrase)
    np.testing.assert_allclose(heat, mean_by_hand(layers, positions, 5, 9), rtol=1e-6)
    np.testing.assert_allclose(
        make(layers).heatmap(phrase, grid="image"), mean_by_hand(layers, positions, 40, 72, 1.0), rtol=1e-6
    )


@pytest.mark.parametrize("size", [(32, 128), (25, 57)])
def test_auffusion_readout_vs_by_hand(size):
    grids = sd_grids(*size)
    layers = captured(grids)
    grid = SpectrogramGrid(height=8 * size[0], width=8 * size[1])
    level = grids["down_blocks.1.attentions.0"]
    heat = make(layers, grid=grid).heatmap("barks", readout="auffusion")
    assert heat.shape == level == ((16, 64) if size == (32, 128) else (13, 29))
    np.testing.assert_allclose(heat, auffusion_by_hand(layers, BARKS, level), rtol=1e-6)
    middle = [name for name in grids if ".1.att" in name or name.startswith("up_blocks.2")][:2]
    finest = [f"up_blocks.2.attentions.{i}" for i in range(3)]
    assert heat.attrs["layers"].split(", ") == middle + finest
    single = make(layers, grid=grid).heatmap("dog", readout="auffusion")
    assert float(single.max()) == 1.0


def test_auffusion_leaves_out_the_middle_even_at_its_grid():
    grids = {**SMALL, "mid_block.attentions.0": (3, 5)}
    layers = captured(grids)
    heat = make(layers).heatmap("barks", readout="auffusion")
    np.testing.assert_allclose(heat, auffusion_by_hand(layers, BARKS, (3, 5)), rtol=1e-6)


def test_auffusion_of_a_token_nobody_looked_at_is_zero_not_nan():
    layers = {
        name: dataclasses.replace(layer, attention=layer.attention * (np.arange(16) != 2)[:, None, None])
        for name, layer in captured(SMALL).items()
    }
    heat = make(layers).heatmap("dog", readout="auffusion")
    np.testing.assert_array_equal(heat, np.zeros((3, 5)))


@pytest.mark.parametrize("name", ["down_blocks.1.attentions.0", "down.1.0"])
def test_a_single_layer_by_its_full_or_short_name(name):
    layers = captured(SMALL)
    heat = make(layers).heatmap("dog", readout=name)
    np.testing.assert_array_equal(heat, layers["down_blocks.1.attentions.0"].attention[0, 0, 2, ::-1])


@pytest.mark.parametrize(
    ("pool", "rule"),
    [("mean", lambda a, b: (a + b) / 2), ("max", np.maximum), ("first", lambda a, _: a), ("last", lambda _, b: b)],
)
@pytest.mark.parametrize("readout", ["mean", "auffusion", "mid.0"])
def test_pooling_of_a_words_tokens(pool, rule, readout):
    maps = make()
    bark, s = (maps.token_heatmap(position, readout=readout) for position in BARKS)
    np.testing.assert_allclose(maps.heatmap("barks", readout=readout, pool=pool), rule(bark, s), rtol=1e-6)


@pytest.mark.parametrize("axis", ["time", "freq"])
def test_activation_of_a_token_is_the_mean_of_its_map(axis):
    maps = make()
    heat = maps.token_heatmap(BARKS[0])
    audible = ~heat.padding
    expected = heat.mean("freq").where(audible) if axis == "time" else heat.where(audible).mean("time")
    np.testing.assert_allclose(maps.token_activation(BARKS[0], axis=axis), expected, rtol=1e-6)


def test_tokens_of_several_encoders_are_pooled_together():
    tables = [table(PROMPT, encoders=2)]
    layers = captured(SMALL, tokens=32)
    maps = make(layers, tokens=tables, positions=range(32))
    both = maps.heatmap("dog")
    np.testing.assert_allclose(both, mean_by_hand(layers, [2, 18], 5, 9), rtol=1e-6)
    second = maps.select(encoder=1).heatmap("dog")
    np.testing.assert_allclose(second, mean_by_hand(layers, [18], 5, 9), rtol=1e-6)


# ---- relations that must hold ----------------------------------------------------------------------------


def summed_out(layers: dict[str, LayerAttention]) -> dict[str, LayerAttention]:
    out = {}
    for name, layer in layers.items():
        axes = tuple(layer.dims.index(dim) for dim in ("step", "head") if dim in layer.dims)
        dims = tuple(dim for dim in layer.dims if dim not in ("step", "head"))
        mean = layer.attention.astype(float).mean(axis=axes).astype(np.float32)
        out[name] = LayerAttention(mean, dims, layer.heads, layer.stride)
    return out


@pytest.mark.parametrize("readout", ["mean", "auffusion", "up.1.0"])
@pytest.mark.parametrize("kept", [{"steps": 3}, {"heads": 4}, {"steps": 3, "heads": 4}])
def test_kept_steps_and_heads_average_to_the_summed_out_store(kept, readout):
    layers = captured(SMALL, **kept)
    a = make(layers).heatmap("dog barks", readout=readout)
    b = make(summed_out(layers)).heatmap("dog barks", readout=readout)
    np.testing.assert_allclose(a, b, rtol=2e-6)


def test_permuted_tokens_permute_maps():
    layers = captured(SMALL)
    order = np.random.default_rng(3).permutation(16)
    permuted = {
        name: dataclasses.replace(layer, attention=layer.attention[:, :, order]) for name, layer in layers.items()
    }
    a, b = make(layers), make(permuted)
    for position in range(16):
        np.testing.assert_array_equal(b.token_heatmap(position), a.token_heatmap(int(order[position])))


def test_all_tokens_together_sum_to_one():
    maps = make()
    total = sum(maps.token_heatmap(position).to_numpy().astype(float) for position in range(16))
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_flipping_the_image_mirrors_frequency_and_nothing_else():
    even = {name: (rows - rows % 2 + 2, columns) for name, (rows, columns) in SMALL.items()}  # no row reaches out
    layers = {
        name: dataclasses.replace(layer, stride=(40 / even[name][0], layer.stride[1]))
        for name, layer in captured(SMALL).items()
    }
    layers = {
        name: dataclasses.replace(layer, attention=np.repeat(layer.attention, 2, -2)[..., : even[name][0], :])
        for name, layer in layers.items()
    }
    upside_down = {
        name: dataclasses.replace(layer, attention=layer.attention[..., ::-1, :]) for name, layer in layers.items()
    }
    a, b = make(layers).heatmap("dog"), make(upside_down).heatmap("dog")
    np.testing.assert_allclose(a.to_numpy()[::-1], b.to_numpy(), rtol=1e-6)


def test_prompts_and_images_are_read_apart():
    layers = captured(SMALL, prompts=2, images=2)
    tables = [table(PROMPT), table("wind and a dog")]
    maps = make(layers, tokens=tables)
    finest = "down_blocks.0.attentions.0"
    for prompt, position in ((0, 2), (1, 4)):
        for image in range(2):
            heat = maps.heatmap("dog", prompt_index=prompt, sample=image, readout=finest)
            expected = layers[finest].attention[prompt, image, position, ::-1]
            np.testing.assert_array_equal(heat, expected)


def test_of_both_branches_the_conditional_one_is_read():
    layers = captured(SMALL, both=True)
    maps = make(layers)
    conditional = {
        name: LayerAttention(layer.attention[1], layer.dims[1:], layer.heads, layer.stride)
        for name, layer in layers.items()
    }
    np.testing.assert_array_equal(maps.heatmap("dog"), make(conditional).heatmap("dog"))
    unconditional = maps.select(branch="unconditional")
    assert unconditional.branch == "unconditional"
    finest = unconditional.heatmap("dog", readout="down.0.0")
    np.testing.assert_array_equal(finest, layers["down_blocks.0.attentions.0"].attention[0, 0, 0, 2, ::-1])


def test_a_repeated_word_needs_its_occurrence_or_span():
    maps = make(tokens=[table("a dog and another Dog")])
    with pytest.raises(PromptError, match="2 times"):
        maps.heatmap("dog")
    np.testing.assert_array_equal(maps.heatmap("dog", occurrence=1), maps.heatmap((18, 21)))
    assert not np.array_equal(maps.heatmap("dog", occurrence=0), maps.heatmap("dog", occurrence=1))
    assert [word.label for word in maps.occurrences()] == ["a", "dog (1st)", "and", "another", "Dog (2nd)"]


def test_words_cut_off_or_unknown_raise():
    maps = make(tokens=[table(PROMPT, room=6)])
    with pytest.raises(PromptError, match="cut off"):
        maps.heatmap("rain")
    with pytest.raises(PromptError, match="not in the prompt"):
        maps.heatmap("cat")
    assert [word.text for word in maps.occurrences()] == ["a", "dog", "barks"]


def test_a_word_that_was_not_stored_raises():
    maps = make(captured(SMALL, tokens=3), positions=[1, 2, 3])
    with pytest.raises(MapsError, match=r"'s' \(position 4\) is missing.*a, dog"):
        maps.heatmap("barks")
    assert [word.text for word in maps.occurrences()] == ["a", "dog"]
    with pytest.raises(MapsError, match="No start token was stored"):
        maps.token_heatmap("start")
    with pytest.raises(MapsError, match="position 9 was not stored"):
        maps.token_heatmap(9)


def test_start_and_end_tokens_do_not_clash_with_words():
    maps = make(tokens=[table("the start and the end")])
    assert maps.heatmap("end").attrs["positions"] == [6]
    assert maps.heatmap("start").attrs["positions"] == [2, 3]
    end = maps.tokens[0].positions("end")
    assert maps.token_heatmap("end").attrs["positions"] == end.tolist()
    np.testing.assert_array_equal(maps.token_heatmap("start"), maps.token_heatmap(0))
    with pytest.raises(MapsError, match="no kind of token 'begin'"):
        maps.token_heatmap("begin")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"readout": "median"}, r"'mean', 'auffusion', 'fitted', 'sharp', a layer.*down\.0\.0"),
        ({"pool": "sum"}, "mean, max, first, last"),
        ({"grid": "coarse"}, "'finest' or 'image'"),
        ({"prompt_index": 1}, "no prompt 1"),
        ({"prompt_index": -1}, "no prompt -1"),
        ({"sample": 1}, "no sample 1"),
    ],
)
def test_unknown_questions_name_what_there_is(ask, words):
    with pytest.raises(MapsError, match=words):
        make().heatmap("dog", **ask)
    with pytest.raises(MapsError, match=words):
        make().activation("dog", **ask)


def test_an_unknown_axis_is_refused():
    with pytest.raises(MapsError, match="'time' or 'freq'"):
        make().activation("dog", axis="mel")


def test_auffusion_without_its_level_raises_also_after_narrowing():
    maps = make()
    with pytest.raises(MapsError, match="3 x 5"):
        maps.select(layers=["down.0.0", "mid.0"]).heatmap("dog", readout="auffusion")
    # The level stays the model's second-finest, not the second-finest of what is left.
    narrowed = maps.select(layers=["down.1.0", "mid.0"])
    assert narrowed.heatmap("dog", readout="auffusion").shape == (3, 5)
    one = {"down_blocks.0.attentions.0": (5, 9)}
    with pytest.raises(MapsError, match="one grid only"):
        make(captured(one)).heatmap("dog", readout="auffusion")
    some = {"down_blocks.1.attentions.0": (3, 5), "mid_block.attentions.0": (2, 3)}
    told = make(captured(some, latents=(5, 9)), levels=[(5, 9), (3, 5), (2, 3)])
    assert told.heatmap("dog", readout="auffusion").shape == (3, 5)


# ---- padding ---------------------------------------------------------------------------------------------


def test_padding_is_marked_in_heat_maps_and_left_out_of_activation():
    maps = make()
    heat = maps.heatmap("dog")
    centres = (np.arange(9) + 0.5) * 0.08  # 9 columns of 80 ms; the audio ends at 0.6 s
    np.testing.assert_array_equal(heat["padding"], centres > 0.6)
    assert np.isfinite(heat).all()
    time = maps.activation("dog")
    np.testing.assert_array_equal(np.isnan(time), centres > 0.6)
    heard = heat.to_numpy()[:, centres <= 0.6]
    np.testing.assert_allclose(time.to_numpy()[centres <= 0.6], heard.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(maps.activation("dog", axis="freq"), heard.mean(axis=1), rtol=1e-6)
    assert maps.activation("dog", axis="freq").dims == ("freq",)


def test_what_is_in_the_padding_changes_no_activation():
    layers = captured(SMALL)
    finest = "down_blocks.0.attentions.0"
    attention = layers[finest].attention.copy()
    attention[..., -1] = 1e3
    louder = {**layers, finest: dataclasses.replace(layers[finest], attention=attention)}
    a, b = make(layers), make(louder)
    for axis in ("time", "freq"):
        np.testing.assert_array_equal(a.activation("dog", axis=axis), b.activation("dog", axis=axis))
    assert not np.array_equal(a.heatmap("dog"), b.heatmap("dog"))


def test_audio_shorter_than_half_a_column_has_no_activation_and_no_warning(recwarn):
    maps = make(grid=dataclasses.replace(GRID, audio_seconds=0.01))
    assert np.isnan(maps.activation("dog")).all()
    assert np.isnan(maps.activation("dog", axis="freq")).all()
    assert not recwarn.list


# ---- the pulse -------------------------------------------------------------------------------------------


def plant(rows: int, columns: int, stride: float, grid: SpectrogramGrid, seconds: float, hz: float) -> np.ndarray:
    """A blob at a second and a frequency, as the flat positions of a layer see it: row 0 on top."""
    low, high, at = (float(librosa.hz_to_mel(f)) for f in (grid.fmin, grid.fmax, hz))
    height = 1 - (np.arange(rows) + 0.5) * stride / grid.height
    across = (np.arange(columns) + 0.5) * stride / grid.width
    mel, when = (at - low) / (high - low), seconds / grid.seconds
    blob = np.exp(-0.5 * (((height[:, None] - mel) / 0.08) ** 2 + ((across[None] - when) / 0.03) ** 2))
    return (0.9 * blob + 0.001).reshape(-1)


def pulse_maps(size: tuple[int, int], seconds: float, hz: float, fold) -> tuple[AttentionMaps, SpectrogramGrid]:
    grid = SpectrogramGrid(height=8 * size[0], width=8 * size[1])
    layers = {}
    for name, (rows, columns) in sd_grids(*size).items():
        stride = stride_of((rows, columns), size)
        positions = plant(rows, columns, stride[0], grid, seconds, hz)
        attention = np.full((1, 1, 16, rows * columns), 1e-3)
        attention[0, 0, 4 if size[0] == 1 else 2] = positions
        folded = attention.reshape(1, 1, 16, *fold(rows, columns))
        if folded.shape[-2:] != (rows, columns):
            stride = (grid.height / folded.shape[-2], grid.width / folded.shape[-1])
        layers[name] = LayerAttention(folded, ("prompt", "image", "token", "row", "column"), 8, stride)
    return make(layers, grid=grid), grid


def check_pulse(maps: AttentionMaps, grid: SpectrogramGrid, seconds: float, hz: float) -> None:
    """Every readout and every layer has its highest cell where the pulse was planted.

    A layer alone: the very cell. Over several layers, the coarser ones may draw the peak to the next cell.
    """
    for readout in ["mean", "auffusion", *maps.layers]:
        cells = 0.51 if readout in maps.layers else 1.0
        heat = maps.heatmap("dog", readout=readout)
        peak = heat.stack(cell=("freq", "time")).idxmax("cell").item()
        bands, frames = heat.attrs["stride"]
        mel = [float(librosa.hz_to_mel(f)) for f in (peak[0], hz, grid.fmin, grid.fmax)]
        assert abs(mel[0] - mel[1]) <= cells * (mel[3] - mel[2]) * bands / grid.height, (readout, peak)
        assert abs(peak[1] - seconds) <= cells * frames * 0.01, (readout, peak)
        assert float(maps.activation("dog", readout=readout).idxmax()) == peak[1]
        other = maps.heatmap("rain", readout=readout)
        assert float(other.max() - other.min()) < 1e-6


PULSES = [(0.2, 150.0), (0.45, 3000.0), (0.8, 6500.0), (0.28, 700.0), (0.95, 1500.0)]


@pytest.mark.parametrize("size", [(32, 128), (25, 57)])
@pytest.mark.parametrize(("share", "hz"), PULSES)
def test_a_planted_pulse_is_read_back_at_its_second_and_frequency(size, share, hz):
    seconds = share * 8 * size[1] * 0.01
    maps, grid = pulse_maps(size, seconds, hz, lambda rows, columns: (rows, columns))
    check_pulse(maps, grid, seconds, hz)


@pytest.mark.parametrize(("share", "hz"), PULSES)
def test_folding_the_positions_to_a_square_fails_the_pulse_test(share, hz):
    """All four counts of 32 x 128 are perfect squares: a guessed grid raises nothing, and scrambles time."""

    def square(rows: int, columns: int) -> tuple[int, int]:
        side = round((rows * columns) ** 0.5)
        assert side * side == rows * columns
        return side, side

    seconds = share * 10.24
    maps, grid = pulse_maps((32, 128), seconds, hz, square)
    assert maps["down.0.0"].shape[-2:] == (64, 64)
    with pytest.raises(AssertionError):
        check_pulse(maps, grid, seconds, hz)
    with pytest.raises(AssertionError, match="mean"):  # already in the first readout, not in some odd layer only
        check_pulse(maps.select(layers=["down.0.0"]), grid, seconds, hz)
