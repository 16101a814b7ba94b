"""Grids whose cells do not divide the spectrogram evenly, and what padding may take part in."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maps.grouped_layout import save_grouped
from maps.maps_synthetic import GRID, SMALL, captured, make

from attnviz.audio import SpectrogramGrid
from attnviz.errors import AudioError, MapsError
from attnviz.maps import AttentionMaps
from attnviz.maps.readouts import resample

FINEST = "down_blocks.0.attentions.0"


# ---- cells -----------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 4), st.sampled_from([8, 16]))
def test_a_cell_stands_for_the_columns_that_were_halved_into_it(rows, columns, halvings, factor):
    """Columns of latents dealt into cells one by one, as stride-2 convolutions with a padding of 1 do."""
    grid = SpectrogramGrid(height=rows * factor, width=columns * factor)
    cells = np.arange(columns)
    for _ in range(halvings):
        cells = cells // 2
    count = int(cells[-1]) + 1
    bands = -(-rows // 2**halvings)
    stride = float(factor * 2**halvings)
    level = grid.cells(bands, count, (stride, stride))
    starts = np.array([np.flatnonzero(cells == cell)[0] for cell in range(count)]) * factor * 0.01
    np.testing.assert_allclose(level.time_edges[:-1], starts, atol=1e-9)
    np.testing.assert_allclose(level.time, starts + stride * 0.01 / 2, atol=1e-9)
    assert level.column_seconds == pytest.approx(stride * 0.01)
    assert (np.diff(level.freq) > 0).all()
    assert level.freq[0] >= grid.fmin
    assert level.freq[-1] < grid.fmax
    assert level.band_edges[-1] == grid.height
    assert level.padding.tolist() == [time > grid.seconds for time in level.time]


def test_the_widths_of_the_issue():
    """976 columns on latents of 16: 61, 31 and 16 columns; the middle was off by 465 ms at its end."""
    grid = SpectrogramGrid(width=976)
    middle = grid.cells(4, 16, (64, 64))
    assert middle.time[15] == pytest.approx(15.5 * 0.64)
    assert middle.time[15] - grid.time(16)[15] == pytest.approx(0.465)
    assert grid.cells(8, 31, (32, 32)).time[30] - grid.time(31)[30] == pytest.approx(0.1574, abs=1e-4)
    even = SpectrogramGrid().cells(16, 64)
    np.testing.assert_array_equal(even.time, SpectrogramGrid().time(64))
    np.testing.assert_array_equal(even.freq, SpectrogramGrid().freq(16))


@pytest.mark.parametrize("stride", [None, (8, 4), (8, 40), (0, 16), (-8, 16), (float("nan"), 16)])
def test_a_stride_that_cannot_be_is_refused(stride):
    with pytest.raises(AudioError, match="stride"):
        SpectrogramGrid(height=40, width=72).cells(5, 5, stride)
    layer = dataclasses.replace(captured(SMALL)[FINEST], attention=np.ones((1, 1, 16, 5, 5)) / 16, stride=stride)
    with pytest.raises(MapsError, match=r"down_blocks.0.attentions.0: .*stride"):
        make({FINEST: layer})


# ---- resampling ------------------------------------------------------------------------------------------


def test_a_slope_over_the_spectrogram_is_the_same_slope_on_every_grid():
    """A function that is linear in seconds and in mel bands is reproduced wherever both grids have centres."""
    grid = SpectrogramGrid(height=200, width=456)  # latents 25 x 57
    target = grid.cells(200, 456)
    for halvings in range(4):
        stride = 8.0 * 2**halvings
        source = grid.cells(-(-25 // 2**halvings), -(-57 // 2**halvings), (stride, stride))
        plane = _middles(source.band_edges)[:, None] + 3 * _middles(source.frame_edges)
        read = resample(plane, source, target)
        bands, frames = _middles(target.band_edges), _middles(target.frame_edges)
        wanted = bands[:, None] + 3 * frames
        inside = (frames >= stride / 2) & (frames <= source.frame_edges[-1] - 1.5 * stride)
        across = (bands >= source.band_edges[0] + stride / 2) & (bands <= 200 - stride / 2)
        np.testing.assert_allclose(read[np.ix_(across, inside)], wanted[np.ix_(across, inside)], atol=1e-9)


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2


def test_padding_of_any_layer_changes_no_column_that_is_heard():
    """What each layer has beyond the audio is replaced: no heard column of a readout may notice."""
    layers = captured(SMALL)
    for name, layer in layers.items():
        loud = {**layers}
        beyond = (np.arange(layer.attention.shape[-1]) + 0.5) * layer.stride[1] * 0.01 > 0.6
        assert beyond.any()
        attention = layer.attention.copy()
        attention[..., beyond] = 50.0
        loud[name] = dataclasses.replace(layer, attention=attention)
        for grid in ("finest", "image"):
            before, after = (make(one).heatmap("dog", grid=grid) for one in (layers, loud))
            heard = ~before["padding"].to_numpy()
            np.testing.assert_array_equal(after.to_numpy()[:, heard], before.to_numpy()[:, heard], err_msg=name)
            assert not np.array_equal(after.to_numpy()[:, ~heard], before.to_numpy()[:, ~heard])


def test_a_clip_that_ends_in_the_first_column_is_read_by_it():
    short = make(grid=dataclasses.replace(GRID, audio_seconds=0.05))  # the middle's first centre: 160 ms
    heat = short.heatmap("dog")
    assert np.isfinite(heat).all()
    middle = short["mid.0"].to_numpy()[0, 0, 2, :, 0]
    alone = short.heatmap("dog", readout="mid.0").to_numpy()[:, 0]
    np.testing.assert_array_equal(alone, middle)


# ---- events and files ------------------------------------------------------------------------------------


def test_labels_end_where_cells_end(tmp_path):
    """Nine columns of latents: two halvings make three columns of 320 ms, the last beyond the audio's 0.6 s."""
    layers = {name: layer for name, layer in captured(SMALL).items() if name == "mid_block.attentions.0"}
    attention = np.zeros_like(layers["mid_block.attentions.0"].attention)
    attention[0, 0, 2, :, 1] = 1.0
    maps = make(
        {"mid_block.attentions.0": dataclasses.replace(layers["mid_block.attentions.0"], attention=attention)}
    )
    written = maps.to_audacity(tmp_path / "words.txt", phrases=["dog"])
    assert written[["start", "end"]].round(9).to_numpy().tolist() == [[0.32, 0.6]]


def older(folder, grids, grid):
    """Save maps as version 1 of the format did: without strides."""
    save_grouped(make(captured(grids), grid=grid), folder, version=1)


def test_older_files_get_their_strides_where_grids_are_even(tmp_path):
    grids = {FINEST: (8, 12), "mid_block.attentions.0": (4, 6)}
    older(tmp_path / "maps.zarr", grids, SpectrogramGrid(height=64, width=96))
    root = json.loads((tmp_path / "maps.zarr" / "zarr.json").read_text())
    assert root["attributes"]["version"] == 1
    maps = AttentionMaps.load(tmp_path / "maps.zarr")
    assert maps["mid.0"].attrs["stride"] == [16.0, 16.0]
    assert maps.heatmap("dog").shape == (8, 12)
    maps.save(tmp_path / "again.zarr")
    assert AttentionMaps.load(tmp_path / "again.zarr").tree.identical(maps.tree)


def test_older_files_whose_times_are_off_are_refused(tmp_path):
    older(tmp_path / "maps.zarr", SMALL, GRID)  # 2 x 3 of 5 x 9: 72 columns divide by 3, but the cells are of 32
    with pytest.raises(MapsError, match=r"down_blocks.1.*did not keep the stride.*Make the maps again"):
        AttentionMaps.load(tmp_path / "maps.zarr")
