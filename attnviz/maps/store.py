"""Save maps as zarr 3 through xarray, and load them with verified checksums.

Other programs can open the store with ``xarray.open_datatree(path, engine="zarr")``, and a single layer with
``xarray.open_zarr(path, group="layers/NAME")``. ``xarray.open_zarr(path)`` lists the layers and their grids. The
root attribute ``checksums`` contains the SHA-256 of each array with its axes and attributes, because zarr silently
replaces a missing chunk by fill values.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from attnviz.errors import AttnVizError, MapsError
from attnviz.io.json_files import read_json
from attnviz.io.ownership import is_store
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_or_nothing
from attnviz.maps.layer import BRANCHES, level_of
from attnviz.maps.schema import (
    ATTRIBUTES,
    CONTENT,
    FORMAT,
    READ,
    VERSION,
    build_tree,
    layer_datasets,
    root_attributes,
    spectrogram_dataset,
    with_strides,
)

_ROOT = "zarr.json"
_OF_RUN = "maps.zarr"  # the maps of a run folder
_SPECTROGRAM = "spectrogram"
_HOW = "how_to_read"
_READING = (
    "attnviz.AttentionMaps.load(path), or xarray.open_datatree(path, engine='zarr'); a layer of it: "
    "xarray.open_zarr(path, group='layers/NAME')"
)

_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
"""Errors that zarr, its codecs and xarray raise for damaged files."""


def write_tree(tree: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a tree; see `AttentionMaps.save`."""
    layers = dict(layer_datasets(tree))
    spectrogram = spectrogram_dataset(tree)
    attrs = root_attributes(tree)
    overview = _overview(layers)
    attrs["checksums"] = json.dumps(_checksums(attrs, layers, spectrogram, overview))
    on_disk = build_tree(attrs, {name: _for_disk(dataset) for name, dataset in layers.items()}, spectrogram)
    on_disk.dataset = overview.assign(name=overview["name"].astype(object)).assign_attrs(
        {_HOW: _READING, **on_disk.attrs}
    )
    # zarr warns that consolidated metadata is not part of the zarr 3 specification; other readers may ignore it.
    with (
        whole_or_nothing(path, overwrite=overwrite, replaceable=is_store) as partial,
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        on_disk.to_zarr(partial, mode="w-", zarr_format=3, consolidated=True)


def read_tree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a tree into memory and check it; see `AttentionMaps.load`."""
    folder = checked_path(path, "the folder of maps", MapsError)
    if not (folder / _ROOT).is_file() and (folder / _OF_RUN / _ROOT).is_file():
        folder = folder / _OF_RUN
    attrs = _root_attributes(folder)
    try:
        # zarr only warns about a folder without metadata; the checksums below turn this into an error.
        with (
            warnings.catch_warnings(action="ignore", category=UserWarning),
            xr.open_datatree(folder, engine="zarr", consolidated=False, decode_times=False) as opened,
        ):
            nodes = opened.children["layers"].children
            layers = {name: _in_memory(nodes[name]) for name in attrs["layers"]}
            sound = opened.children.get(_SPECTROGRAM)
            spectrogram = None if sound is None else _in_memory(sound)
            attrs.pop(_HOW, None)
            expected = json.loads(attrs.pop("checksums"))
            found = _checksums(attrs, layers, spectrogram, _in_memory(opened))
    except _UNREADABLE as error:
        raise MapsError(
            f"{path} is damaged or incomplete: {type(error).__name__}: {_first_line(error)}. Was it copied only "
            "in part, or edited?"
        ) from error
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            problem = "is missing" if name not in found else "differs from its checksum"
            raise MapsError(
                f"{path} is damaged: {name} {problem} (a lost or altered file, or NaN written into it). "
                "Copy or make the maps again."
            )
    attrs = {**CONTENT, **attrs}
    if attrs["version"] < VERSION:
        try:
            layers = with_strides(attrs, layers)  # the grid may be damaged, too
        except AttnVizError as error:
            raise MapsError(f"{path}: {error}") from error
        attrs["version"] = VERSION
    return build_tree(attrs, layers, spectrogram)


def _root_attributes(folder: Path) -> dict[str, Any]:
    """Read and check the attributes of the root first, to distinguish other files from damaged maps."""
    if not folder.is_dir():
        state = "is a file, not a folder" if folder.exists() else "does not exist"
        raise MapsError(f"{folder} {state}; maps are a zarr folder as written by AttentionMaps.save.")
    root = folder / _ROOT
    if not root.is_file():
        held = sorted(path.name for path in folder.glob("*.zarr"))
        hint = f"Load {folder / held[0]}" if held else "Is it another folder or an interrupted copy"
        raise MapsError(f"{folder} does not contain maps: {_ROOT} is missing. {hint}?")
    try:
        attrs = read_json(root, error=MapsError)["attributes"]
        kind, version = attrs.get("format"), attrs.get("version")
    except (MapsError, *_UNREADABLE) as error:
        raise MapsError(f"{folder} is damaged: {_ROOT} cannot be read ({_first_line(error)}).") from error
    if kind != FORMAT:
        raise MapsError(f"{folder} is a zarr store without maps: its format is {kind!r}, not {FORMAT!r}.")
    if version not in READ:
        known = " and ".join(map(str, READ))
        raise MapsError(
            f"{folder} has format version {version!r}; this attnviz reads version {known}. Was it written by a "
            "newer attnviz?"
        )
    missing = [key for key in (*ATTRIBUTES, "checksums") if key not in attrs]
    if missing:
        raise MapsError(f"{folder} is damaged: {_ROOT} lacks {', '.join(missing)}.")
    return dict(attrs)


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


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]
