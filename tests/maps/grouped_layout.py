"""A writer of the layout of versions 1 and 2, which had a zarr group for each layer."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from attnviz.maps import AttentionMaps
from attnviz.maps.layer import BRANCHES, level_of
from attnviz.maps.schema import build_tree, layer_datasets, root_attributes, spectrogram_dataset

_SPECTROGRAM = "spectrogram"


def save_grouped(maps: AttentionMaps, path: Path, version: int = 2) -> None:
    """Save maps as attnviz did, with a group for each layer."""
    tree = maps.tree
    layers = dict(layer_datasets(tree))
    if version == 1:  # which did not keep the stride
        layers = {name: _without_stride(dataset) for name, dataset in layers.items()}
    spectrogram = spectrogram_dataset(tree)
    attrs = {**root_attributes(tree), "version": version}
    overview = _overview(layers)
    attrs["checksums"] = json.dumps(_checksums(attrs, layers, spectrogram, overview))
    on_disk = build_tree(attrs, {name: _for_disk(dataset) for name, dataset in layers.items()}, spectrogram)
    on_disk.dataset = overview.assign(name=overview["name"].astype(object)).assign_attrs(
        {"how_to_read": "with xarray", **on_disk.attrs}
    )
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        on_disk.to_zarr(path, mode="w-", zarr_format=3, consolidated=True)


def _without_stride(dataset: xr.Dataset) -> xr.Dataset:
    array = dataset["attention"].copy()
    del array.attrs["stride"]
    return dataset.assign(attention=array)


def _overview(layers: dict[str, xr.Dataset]) -> xr.Dataset:
    """Return the dataset of the root: layers and their grids, without an index that groups would inherit."""
    grids = np.array([level_of(dataset["attention"]) for dataset in layers.values()], dtype=np.int64)
    return xr.Dataset(
        {
            "name": ("layer", np.array(list(layers), dtype=np.str_)),
            "rows": ("layer", grids[:, 0]),
            "columns": ("layer", grids[:, 1]),
        }
    )


def _for_disk(dataset: xr.Dataset) -> xr.Dataset:
    # zarr 3 specifies variable-length UTF-8 (from objects), but not the fixed-width text of NumPy.
    texts = {name: coord.astype(object) for name, coord in dataset.coords.items() if coord.dtype.kind == "U"}
    branch = texts.pop("branch", None)
    out = dataset.assign_coords(texts)
    if branch is not None:  # xarray reads a text index back as objects: write numbers instead
        numbers = [BRANCHES.index(str(name)) for name in dataset["branch"].to_numpy()]
        out = out.assign_coords(branch=("branch", numbers, {"flag_meanings": " ".join(BRANCHES)}))
    return out


def _checksums(
    attrs: dict[str, Any], layers: dict[str, xr.Dataset], spectrogram: xr.Dataset | None, overview: xr.Dataset
) -> dict[str, str]:
    """Return the SHA-256 of the root attributes and of each array, by path in the store."""
    groups: Iterator[tuple[str, xr.Dataset]] = iter(
        [("", overview), *((f"layers/{name}", dataset) for name, dataset in layers.items())]
    )
    sums = {"attributes": _digest_of(attrs)}
    for group, dataset in [*groups, *([(_SPECTROGRAM, spectrogram)] if spectrogram is not None else [])]:
        for name in sorted(map(str, dataset.variables)):
            role = "coordinate" if name in dataset.coords else "variable"
            sums[f"{group}/{name}".removeprefix("/")] = _digest(dataset.variables[name], role)
    return sums


def _digest(variable: xr.Variable, role: str) -> str:
    values = variable.to_numpy()
    facts: list[object] = [role, list(variable.dims), dict(variable.attrs)]
    if values.dtype.kind not in "biuf":
        return _digest_of([*facts, values.tolist()])
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(_digest_of([*facts, plain.dtype.str, plain.shape]).encode())
    digest.update(plain.data)
    return digest.hexdigest()


def _digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
