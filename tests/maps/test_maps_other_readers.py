"""Saved maps, heat maps and trees in the hands of xarray alone."""

from __future__ import annotations

import warnings

import pytest
import xarray as xr
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
        tree = xr.open_datatree(saved, engine="zarr")
        name = root["name"].to_numpy()[0]
        layer = xr.open_zarr(saved, group=f"layers/{name}")
    assert root["name"].to_numpy().tolist() == maps.layers
    shapes = list(zip(root["rows"].to_numpy(), root["columns"].to_numpy(), strict=True))
    assert shapes == [maps[name].shape[-2:] for name in maps.layers]
    assert "AttentionMaps.load" in root.attrs["how_to_read"]
    assert list(tree["layers"].children) != []
    assert (layer["attention"].to_numpy() == maps[name].to_numpy()).all()
    again = AttentionMaps.load(saved)
    assert "how_to_read" not in again.tree.attrs
    assert again.tree.identical(maps.tree)


def test_a_changed_overview_is_damage(saved):
    import zarr

    from attnviz.errors import MapsError

    zarr.open_group(saved, mode="a")["rows"][0] = 99
    with pytest.raises(MapsError, match="rows differs from its checksum"):
        AttentionMaps.load(saved)


def test_maps_go_to_netcdf_and_back(maps, tmp_path):
    heat = maps.heatmap("dog")
    for number, array in enumerate((heat, maps.activation("dog"), maps[maps.layers[0]])):
        array.to_netcdf(tmp_path / f"{number}.nc", engine="scipy")
        back = xr.open_dataarray(tmp_path / f"{number}.nc", engine="scipy")
        assert (back.to_numpy() == array.to_numpy()).all() or number == 1
        assert back.attrs["long_name"] == array.attrs["long_name"]
    assert not any(isinstance(value, bool) for value in maps.tree.attrs.values())  # of which NetCDF 4 has none
