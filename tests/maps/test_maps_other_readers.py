"""Saved maps, heat maps and trees in the hands of xarray alone."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from documentation import ROOT, blocks
from maps.maps_synthetic import make

from attnviz.maps import AttentionMaps


@pytest.fixture
def maps():
    return make()


@pytest.fixture
def saved(maps, tmp_path):
    maps.save(tmp_path / "maps.zarr")
    return tmp_path / "maps.zarr"


def test_zarr_opens_without_an_argument_or_a_warning_and_shows_what_is_there(maps, saved):
    with warnings.catch_warnings(action="error"):
        root = xr.open_zarr(saved)
    assert root["layer"].to_numpy().tolist() == maps.layers
    assert set(root.coords) == {"layer", "token", "token_text", "freq", "time"}
    assert root.sizes["row"], root.sizes["column"] == maps[maps.layers[0]].shape[-2:]
    assert "AttentionMaps.load" in root.attrs["how_to_read"]
    for name in maps.layers:
        layer = root["attention"].sel(layer=name).dropna("row", how="all").dropna("column", how="all")
        assert (layer.to_numpy() == maps[name].to_numpy()).all()
        assert (layer["time"].to_numpy() == maps[name]["time"].to_numpy()).all()
    again = AttentionMaps.load(saved)
    assert "how_to_read" not in again.tree.attrs
    assert again.tree.identical(maps.tree)


def test_zarr_itself_reads_a_part_of_a_layer(maps, saved):
    group = zarr.open_group(saved, mode="r")
    number = group["layer"][:].tolist().index("mid_block.attentions.0")
    assert (group["attention"][number, 0, 0, 3, 0, :3] == maps["mid.0"].to_numpy()[0, 0, 3, 0]).all()


def test_the_documented_layout_is_that_of_files(maps, tmp_path, monkeypatch):
    page = ROOT / "docs" / "maps.md"
    make(spectrogram=np.zeros((1, 1, 40, 72))).save(tmp_path / "dog.zarr")
    described = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", page.read_text("utf-8"), re.MULTILINE)
    assert {name for row in described for name in row if name} == {
        path.name for path in (tmp_path / "dog.zarr").iterdir() if path.is_dir()
    }
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(page)
    scope: dict[str, object] = {}
    exec(compile(block.text, str(page), "exec"), scope)
    assert (scope["layer"].to_numpy() == maps["mid.0"].to_numpy()).all()
    scope["opened"].close()


def test_maps_go_to_netcdf_and_back(maps, tmp_path):
    heat = maps.heatmap("dog")
    for number, array in enumerate((heat, maps.activation("dog"), maps[maps.layers[0]])):
        array.to_netcdf(tmp_path / f"{number}.nc", engine="scipy")
        back = xr.open_dataarray(tmp_path / f"{number}.nc", engine="scipy")
        assert (back.to_numpy() == array.to_numpy()).all() or number == 1
        assert back.attrs["long_name"] == array.attrs["long_name"]
    assert not any(isinstance(value, bool) for value in maps.tree.attrs.values())  # of which NetCDF 4 has none
