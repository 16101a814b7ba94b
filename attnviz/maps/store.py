"""Save maps as zarr 3, and load them with verified checksums.

`attnviz.maps.packed` is the layout; folders of older versions are read by `attnviz.maps.grouped`. Other programs
can open the store with ``xarray.open_zarr(path)``. The root attribute ``checksums`` contains the SHA-256 of each
array with its axes and attributes, because zarr silently replaces a missing chunk by fill values.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xarray as xr

from attnviz.errors import AttnVizError, MapsError
from attnviz.io.json_files import read_json
from attnviz.io.ownership import is_store
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_or_nothing
from attnviz.maps.checksums import HOW_TO_READ, Checksums, digest_of
from attnviz.maps.grouped import VERSIONS as GROUPED
from attnviz.maps.grouped import read_grouped
from attnviz.maps.packed import read_packed, write_packed
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
_STRIDES = 2
"""First version that stored the stride of layers."""

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
    with whole_or_nothing(path, overwrite=overwrite, replaceable=is_store) as partial:
        write_packed(partial, root_attributes(tree), dict(layer_datasets(tree)), spectrogram_dataset(tree))


def read_tree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a tree into memory and check it; see `AttentionMaps.load`."""
    folder = checked_path(path, "the folder of maps", MapsError)
    if not (folder / _ROOT).is_file() and (folder / _OF_RUN / _ROOT).is_file():
        folder = folder / _OF_RUN
    attrs = _root_attributes(folder)
    attrs.pop(HOW_TO_READ, None)
    read = read_grouped if attrs["version"] in GROUPED else read_packed
    try:
        expected = dict(json.loads(attrs.pop("checksums")))
        _check(path, {"attributes": expected.pop("attributes", "")}, {"attributes": digest_of(attrs)})
        layers, spectrogram, found = read(folder, attrs)
    except _UNREADABLE as error:
        raise MapsError(
            f"{path} is damaged or incomplete: {type(error).__name__}: {_first_line(error)}. Was it copied only "
            "in part, or edited?"
        ) from error
    _check(path, expected, found)
    attrs = {**CONTENT, **attrs}
    if attrs["version"] < _STRIDES:
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


def _check(path: str | os.PathLike[str], expected: Checksums, found: Checksums) -> None:
    """Raise an error that names the first array that is missing or differs from its checksum."""
    if wrong := _first_difference(expected, found):
        raise MapsError(
            f"{path} is damaged: {wrong} (a lost or altered file, or NaN written into it). Copy or make the maps "
            "again."
        )


def _first_difference(expected: Checksums, found: Checksums) -> str | None:
    for name in [*expected, *found]:
        own, other = expected.get(name), found.get(name)
        if isinstance(own, dict) and isinstance(other, dict):
            if inside := _first_difference(own, other):
                return f"{name} of {inside}"
        elif own != other:
            return f"{name} {'is missing' if name not in found else 'differs from its checksum'}"
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]
