"""Read maps of versions 1 and 2, which had a zarr group with coordinates of its own for each layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from attnviz.maps.checksums import Checksums, array_digest
from attnviz.maps.layer import BRANCHES

VERSIONS = (1, 2)
_SPECTROGRAM = "spectrogram"


def read_grouped(
    folder: Path, attrs: Mapping[str, Any]
) -> tuple[dict[str, xr.Dataset], xr.Dataset | None, Checksums]:
    """Read the layers, the spectrogram if any, and the checksums of what was read.

    Parameters
    ----------
    folder : pathlib.Path
    attrs : mapping
        Attributes of the root.
    """
    # zarr only warns about a folder without metadata; the checksums turn this into an error.
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),
        xr.open_datatree(folder, engine="zarr", consolidated=False, decode_times=False) as opened,
    ):
        nodes = opened.children["layers"].children
        layers = {name: _in_memory(nodes[name]) for name in attrs["layers"]}
        sound = opened.children.get(_SPECTROGRAM)
        spectrogram = None if sound is None else _in_memory(sound)
        return layers, spectrogram, _checksums(layers, spectrogram, _in_memory(opened))


def _in_memory(node: xr.DataTree) -> xr.Dataset:
    dataset = node.to_dataset(inherit=False).load().drop_encoding()
    # Convert back to NumPy text from the type that the reader chose.
    texts = {
        name: (coord.dims, np.array(coord.to_numpy().tolist(), dtype=np.str_), coord.attrs)
        for name, coord in dataset.coords.items()
        if coord.dtype.kind not in "biuf"
    }
    dataset = dataset.assign_coords(texts)
    if "name" in dataset.data_vars:
        dataset = dataset.assign(name=("layer", np.array(dataset["name"].to_numpy().tolist(), dtype=np.str_)))
    if "branch" in dataset.dims:
        names = np.array(BRANCHES)[dataset["branch"].to_numpy()]
        dataset = dataset.assign_coords(branch=names)
    return dataset


def _checksums(layers: dict[str, xr.Dataset], spectrogram: xr.Dataset | None, overview: xr.Dataset) -> Checksums:
    """Return the digest of each array, by path in the store."""
    groups: Iterator[tuple[str, xr.Dataset]] = iter(
        [("", overview), *((f"layers/{name}", dataset) for name, dataset in layers.items())]
    )
    sums: Checksums = {}
    for group, dataset in [*groups, *([(_SPECTROGRAM, spectrogram)] if spectrogram is not None else [])]:
        for name in sorted(map(str, dataset.variables)):
            role = "coordinate" if name in dataset.coords else "variable"
            variable = dataset.variables[name]
            sums[f"{group}/{name}".removeprefix("/")] = array_digest(
                variable.to_numpy(), variable.dims, variable.attrs, role
            )
    return sums
