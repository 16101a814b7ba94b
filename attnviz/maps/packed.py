"""The layout of saved maps: one zarr group, in which the layers of a run are one array with shared coordinates.

``attention`` has the axes ``layer, [branch], prompt, image, [step], [head], token, [row], column``, where row 0 is
the lowest frequency. Layers with fewer heads, rows or columns than the largest are filled with NaN, which takes no
space when it is compressed. Its coordinates are ``layer`` (names), ``token`` (key position), ``token_text``
(prompt, token), ``freq`` (layer, row) in Hz and ``time`` (layer, column) in s. ``log_mel`` (prompt, image, band,
frame) is the spectrogram. Further coordinates and the attributes of each layer are JSON in the attributes ``axes``
and ``facts`` of the group.

A chunk belongs to one layer, so that a reader can load a single one. Chunks are stored in shards: the number of
files grows with the number of bytes and not with that of layers.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from attnviz.audio.grid import SpectrogramGrid
from attnviz.maps.checksums import HOW_TO_READ, Checksums, array_digest, digest_of
from attnviz.maps.layer import axes_of, cells_of
from attnviz.maps.schema import label_spectrogram

ATTENTION, LOG_MEL = "attention", "log_mel"
_ON_DISK = {"freq": "row", "time": "column"}
_OF_CELLS = ("freq", "time", "padding")
_ARRAYS = ("token", "token_text")  # shared coordinates that other readers find as arrays
_SPECTROGRAM_DIMS = ("prompt", "image", "band", "frame")
_CHUNK_BYTES = 4 << 20
_SHARD_BYTES = 64 << 20

_READING = (
    "attnviz.AttentionMaps.load(path), or xarray.open_zarr(path): the attention of a layer is "
    "attention.sel(layer=NAME), which is NaN beyond the rows and columns of the layer"
)


def write_packed(
    folder: Path, attrs: Mapping[str, Any], layers: Mapping[str, xr.Dataset], spectrogram: xr.Dataset | None
) -> None:
    """Write a store.

    Parameters
    ----------
    folder : pathlib.Path
        Folder that does not exist.
    attrs : mapping
        Attributes of the root.
    layers : mapping of str to xarray.Dataset
    spectrogram : xarray.Dataset or None
    """
    first = next(iter(layers.values()))
    shared = _shared(layers)
    facts = {name: _facts(dataset, shared) for name, dataset in layers.items()}
    small = _small_arrays(layers, first)
    listed = " ".join(name for name in small if name not in ("layer", "token"))
    kept = {name: _listed(coord) for name, coord in shared.items() if name not in _ARRAYS}
    whole = {**attrs, "coordinates": listed, "axes": json.dumps(kept), "facts": json.dumps(facts)}
    arrays = {name: dataset[ATTENTION].to_numpy() for name, dataset in layers.items()}
    sums: Checksums = {"attributes": digest_of(whole)}
    sums |= {
        name: array_digest(variable.values, variable.dims, variable.attrs) for name, variable in small.items()
    }
    sums[ATTENTION] = {name: _layer_digest(values) for name, values in arrays.items()}
    if spectrogram is not None:
        log_mel = spectrogram[LOG_MEL]
        sums[LOG_MEL] = array_digest(log_mel.to_numpy(), _SPECTROGRAM_DIMS, log_mel.attrs)
    # zarr warns that consolidated metadata is not part of the zarr 3 specification; other readers may ignore it.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        group = zarr.create_group(
            store=folder,
            zarr_format=3,
            attributes={HOW_TO_READ: _READING, **whole, "checksums": json.dumps(sums)},
        )
        for name, variable in small.items():
            array = _create(group, name, variable.dims, variable.shape, variable.dtype, variable.attrs)
            # zarr 3.1 writes texts in the order of memory, which is that of columns after a selection.
            array[...] = np.ascontiguousarray(variable.values)
        quantity = {"long_name": attrs["quantity"]} if "quantity" in attrs else {}
        _write_blocks(group, ATTENTION, _attention_dims(first), list(arrays.values()), quantity)
        if spectrogram is not None:
            _write_blocks(group, LOG_MEL, _SPECTROGRAM_DIMS, list(log_mel.to_numpy()), log_mel.attrs)
        zarr.consolidate_metadata(folder)


def read_packed(folder: Path, attrs: dict[str, Any]) -> tuple[dict[str, xr.Dataset], xr.Dataset | None, Checksums]:
    """Read the layers, the spectrogram if any, and the checksums of what was read.

    Parameters
    ----------
    folder : pathlib.Path
    attrs : dict
        Attributes of the root. Those that only files have are removed.
    """
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        group = zarr.open_group(folder, mode="r", zarr_format=3)
    arrays = dict(group.arrays())
    stored, sound = arrays.pop(ATTENTION), arrays.pop(LOG_MEL, None)
    small = {name: _read(array) for name, array in arrays.items()}
    found: Checksums = {name: array_digest(one.values, one.dims, one.attrs) for name, one in small.items()}
    facts, axes = json.loads(attrs.pop("facts")), json.loads(attrs.pop("axes"))
    attrs.pop("coordinates")
    grid = SpectrogramGrid.from_dict(json.loads(attrs["grid"]))
    shared = {name: _variable(one) for name, one in axes.items()}
    shared |= {name: small[name] for name in _ARRAYS if name in small}
    layers, dims = {}, _names(stored)[1:]
    found[ATTENTION] = {}
    for number, name in enumerate(attrs["layers"]):
        own = facts[name]
        values = np.ascontiguousarray(stored[(number, *map(slice, own["shape"]))])
        found[ATTENTION][name] = _layer_digest(values)
        layers[name] = _labelled(values, dims, own, shared, small, number, grid)
    spectrogram = None
    if sound is not None:
        log_mel = _read(sound)
        found[LOG_MEL] = array_digest(log_mel.values, log_mel.dims, log_mel.attrs)
        spectrogram = label_spectrogram(log_mel.values, grid)
    return layers, spectrogram, found


def _attention_dims(dataset: xr.Dataset) -> tuple[str, ...]:
    return ("layer", *(_ON_DISK.get(str(dim), str(dim)) for dim in dataset[ATTENTION].dims))


def _shared(layers: Mapping[str, xr.Dataset]) -> dict[str, xr.Variable]:
    """Return the coordinates that are the same in all layers."""
    first, *others = layers.values()
    return {
        str(name): coord.variable
        for name, coord in first.coords.items()
        if name not in _OF_CELLS
        and (name in _ARRAYS or all(coord.variable.identical(other[name].variable) for other in others))
    }


def _facts(dataset: xr.Dataset, shared: Mapping[str, xr.Variable]) -> dict[str, Any]:
    """Return what is known of one layer only: attributes, shape, and coordinates that differ, such as heads."""
    own = {
        str(name): _listed(coord.variable)
        for name, coord in dataset.coords.items()
        if name not in shared and name not in _OF_CELLS
    }
    return {"attrs": dict(dataset[ATTENTION].attrs), "shape": list(dataset[ATTENTION].shape), "coords": own}


def _small_arrays(layers: Mapping[str, xr.Dataset], first: xr.Dataset) -> dict[str, xr.Variable]:
    """Return the coordinates that are stored as arrays."""
    found = {"layer": xr.Variable(("layer",), np.array(list(layers), dtype=np.str_))}
    found |= {name: first[name].variable for name in _ARRAYS}
    for name in ("freq", "time"):
        if name in first.coords:
            rows = [dataset[name].to_numpy() for dataset in layers.values()]
            padded = np.full((len(rows), max(map(len, rows))), np.nan)
            for number, row in enumerate(rows):
                padded[number, : len(row)] = row
            found[name] = xr.Variable(("layer", _ON_DISK[name]), padded, first[name].attrs)
    return found


def _labelled(
    values: np.ndarray,
    dims: Sequence[str],
    own: Mapping[str, Any],
    shared: Mapping[str, xr.Variable],
    small: Mapping[str, xr.Variable],
    number: int,
    grid: SpectrogramGrid,
) -> xr.Dataset:
    """Return the dataset of one layer."""
    names = {on_disk: name for name, on_disk in _ON_DISK.items()}
    array = xr.DataArray(values, dims=[names.get(dim, dim) for dim in dims], attrs=own["attrs"])
    cells = cells_of(array, grid)
    coords: dict[str, Any] = {**shared, **{name: _variable(one) for name, one in own["coords"].items()}}
    coords |= axes_of(cells)
    for name in ("freq", "time"):
        if name in small:  # the saved values, whatever this version would compute
            saved = small[name].values[number, : array.sizes[name]]
            coords[name] = xr.Variable((name,), saved, small[name].attrs)
    return xr.Dataset({ATTENTION: array}, coords=coords)


def _listed(variable: xr.Variable) -> dict[str, Any]:
    return {"dims": list(variable.dims), "values": variable.values.tolist(), "attrs": dict(variable.attrs)}


def _variable(listed: Mapping[str, Any]) -> xr.Variable:
    return xr.Variable(listed["dims"], np.array(listed["values"]), listed["attrs"])


def _layer_digest(values: np.ndarray) -> str:
    return array_digest(values, (), {})  # axes and attributes are among those of the root


def _create(
    group: zarr.Group,
    name: str,
    dims: Sequence[Any],
    shape: tuple[int, ...],
    dtype: np.dtype,
    attrs: Mapping[Any, Any],
    chunks: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
) -> zarr.Array:
    kind: Any = str if dtype.kind == "U" else dtype
    return group.create_array(
        name, shape=shape, dtype=kind, chunks=chunks or shape, shards=shards, dimension_names=list(map(str, dims)),
        attributes=dict(attrs), fill_value=float("nan") if dtype.kind == "f" else None,
        compressors=ZstdCodec(level=0, checksum=True),
    )  # fmt: skip


def _write_blocks(
    group: zarr.Group, name: str, dims: Sequence[str], rows: Sequence[np.ndarray], attrs: Mapping[Any, Any]
) -> None:
    """Write arrays along the first axis of an array, shard by shard, so that one shard is copied at a time."""
    sizes = np.max([row.shape for row in rows], axis=0).tolist()
    shape = (len(rows), *sizes)
    chunks, shards = _parts(shape, rows[0].dtype.itemsize)
    array = _create(group, name, dims, shape, rows[0].dtype, attrs, chunks, shards)
    for region in _regions(shape, shards):
        block = np.full([part.stop - part.start for part in region], np.nan, dtype=rows[0].dtype)
        for place, row in zip(block, rows[region[0]], strict=True):
            own = row[region[1:]]
            place[tuple(slice(size) for size in own.shape)] = own
        array[region] = block


def _parts(shape: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of chunks, each of one entry of the first axis, and of shards."""
    # Bytes of one entry of an axis and all of the axes behind it.
    behind = [itemsize * int(np.prod(shape[axis:])) for axis in range(len(shape))]
    last = len(shape) - 2
    inner = next((axis for axis in range(1, last) if behind[axis] <= _CHUNK_BYTES), last)
    chunks = (1,) * inner + shape[inner:]
    outer = next((axis for axis in range(inner) if behind[axis] <= _SHARD_BYTES), inner)
    if not outer:
        return chunks, shape
    several = min(max(1, _SHARD_BYTES // behind[outer]), shape[outer - 1])
    return chunks, (1,) * (outer - 1) + (several,) + shape[outer:]


def _regions(shape: tuple[int, ...], shards: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield the regions of all shards."""
    for corner in itertools.product(*(range(0, size, step) for size, step in zip(shape, shards, strict=True))):
        yield tuple(
            slice(start, min(start + step, size)) for start, step, size in zip(corner, shards, shape, strict=True)
        )


def _read(array: zarr.Array) -> xr.Variable:
    values = np.asarray(array[...])
    if values.dtype.kind not in "biuf":
        values = np.array(values.tolist(), dtype=np.str_)
    return xr.Variable(_names(array), values, dict(array.attrs))


def _names(array: zarr.Array) -> tuple[str, ...]:
    return tuple(map(str, array.metadata.dimension_names))
