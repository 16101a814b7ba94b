"""Build the tree of the maps of a run, with its groups and attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.layer import PROBABILITY, LayerAttention, TokenLabels, axes_of, label_layer, level_of
from attnviz.text.tokens import TokenTable

FORMAT = "attnviz maps"
VERSION = 3
READ = (1, 2, 3)
"""Supported versions. Version 1 did not store the stride of layers; 1 and 2 had a zarr group for each layer."""

ATTRIBUTES = (
    "format", "version", "layers", "levels", "branch", "timesteps", "complete", "tokens", "grid", "provenance",
)  # fmt: skip
"""Attributes of the root. ``tokens``, ``grid`` and ``provenance`` are JSON texts. ``levels`` lists the grids of
all cross-attention layers of the model, finest first, including layers that were not captured. ``encoder`` (int)
is present only after ``select(encoder=...)``."""

CONTENT: dict[str, Any] = {
    "quantity": PROBABILITY,
    "signed": 0,
    "method": "attention",
    "family": "stable-diffusion",
}
"""What the maps hold, as attributes of the root: name of the values, whether they have a sign by definition, what
made them, and the family of the model (`attnviz.models.families`). Files without them hold these."""


def tree_from_layers(
    layers: Mapping[str, LayerAttention],
    *,
    tokens: Sequence[TokenTable],
    positions: Sequence[int],
    timesteps: Sequence[float],
    grid: SpectrogramGrid,
    spectrogram: np.ndarray | None,
    provenance: Mapping[str, Any] | None,
    complete: bool,
    levels: Sequence[tuple[int, int]] | None,
    content: Mapping[str, Any],
) -> xr.DataTree:
    """Label and check the captured layers of a run; see `AttentionMaps.from_layers`."""
    if not layers:
        raise MapsError("There are no layers: nothing was captured. Did the pipeline run inside the trace?")
    if unknown := sorted(set(content) - set(CONTENT)):
        raise MapsError(f"content has {unknown}; expected {', '.join(CONTENT)}.")
    if not tokens:
        raise MapsError("There are no token tables; give one for each prompt.")
    steps = [float(timestep) for timestep in timesteps]
    if not steps or not np.isfinite(steps).all():
        raise MapsError(f"timesteps must be finite, one per recorded denoiser call, at least one; got {steps}.")
    labels = TokenLabels.of(tokens, positions)
    datasets: dict[str, xr.Dataset] = {}
    for name in layers:  # look up each layer once: a lazy mapping then needs memory for one layer only
        if not name or "/" in name:
            raise MapsError(f"Layer name {name!r} is empty or has a '/', which separates groups in the file.")
        datasets[name] = label_layer(name, layers[name], labels, steps, grid, content["quantity"])
    _check_alike(datasets)
    grids = {level_of(ds["attention"]) for ds in datasets.values()}
    grids |= {(int(rows), int(columns)) for rows, columns in levels or ()}
    attrs = {
        "format": FORMAT,
        "version": VERSION,
        "layers": list(datasets),
        "levels": [list(level) for level in sorted(grids, key=_cells, reverse=True)],
        "branch": "both" if "branch" in next(iter(datasets.values())).dims else "conditional",
        "timesteps": steps,
        "complete": int(complete),  # NetCDF has no booleans
        "tokens": json.dumps([table.to_json() for table in tokens]),
        "grid": json.dumps(grid.to_dict()),
        "provenance": provenance_text(provenance or {}),
        **content,
    }
    first = next(iter(datasets.values()))
    sound = None
    if spectrogram is not None:
        sound = label_spectrogram(_checked_spectrogram(spectrogram, first.sizes, grid), grid)
    return build_tree(attrs, datasets, sound)


def build_tree(
    attrs: Mapping[str, Any], layers: Mapping[str, xr.Dataset], spectrogram: xr.Dataset | None
) -> xr.DataTree:
    """Combine groups into a tree. Layers have different grids, so their parent has no coordinates."""
    groups: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=dict(attrs))}
    groups.update({f"/layers/{name}": dataset for name, dataset in layers.items()})
    if spectrogram is not None:
        groups["/spectrogram"] = spectrogram
    return xr.DataTree.from_dict(groups)


def with_strides(attrs: Mapping[str, Any], layers: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Add strides to the layers of a version 1 file, if their grids divide the spectrogram evenly.

    Raises
    ------
    MapsError
        If a grid does not divide the spectrogram evenly: its saved times are wrong, and its stride is unknown.
    """
    grid = SpectrogramGrid.from_dict(json.loads(attrs["grid"]))
    rows, columns = attrs["levels"][0]
    found = {}
    for name, dataset in layers.items():
        own_rows, own_columns = dataset["attention"].shape[-2:]
        halved = {rows / own_rows, columns / own_columns}
        even = grid.bands % own_rows == 0 and grid.width % own_columns == 0
        # 5 x 9 cells become 2 x 3 after two halvings: 3 divides 9, but a cell does not cover 3 columns.
        if not even or len(halved) > 1 or not float(np.log2(halved.pop())).is_integer():
            raise MapsError(
                f"{name} was saved by a version of attnviz that did not keep the stride of layers. Its grid of "
                f"{own_rows} x {own_columns} does not divide {rows} x {columns} evenly, so its saved times are "
                "wrong. Make the maps again."
            )
        stride = [grid.bands / own_rows, grid.width / own_columns]
        found[name] = dataset.assign(attention=dataset["attention"].assign_attrs(stride=stride))
    return found


def root_attributes(tree: xr.DataTree) -> dict[str, Any]:
    """Return a copy of the attributes of the root."""
    return {str(key): value for key, value in tree.attrs.items()}


def layer_datasets(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the name and dataset of each layer, in the order of the run."""
    nodes = tree.children["layers"].children
    for name in tree.attrs["layers"]:
        yield name, nodes[name].to_dataset(inherit=False)


def spectrogram_dataset(tree: xr.DataTree) -> xr.Dataset | None:
    """Return the dataset of the spectrogram, or None if the run has none."""
    node = tree.children.get("spectrogram")
    return None if node is None else node.to_dataset(inherit=False)


def read_tokens(text: str) -> list[TokenTable]:
    """Parse the token tables from the attribute of the tree."""
    return [TokenTable.from_json(table) for table in json.loads(text)]


def provenance_text(provenance: Mapping[str, Any]) -> str:
    """Write provenance as JSON.

    Raises
    ------
    MapsError
        If a value cannot be written as JSON.
    """
    try:
        return json.dumps(provenance, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise MapsError(
            f"provenance must contain JSON values only (text, numbers, lists, dicts): {error}."
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not one of them")


def _cells(level: tuple[int, ...]) -> tuple[int, ...]:
    return (int(np.prod(level)), *level)


def _check_alike(datasets: Mapping[str, xr.Dataset]) -> None:
    """Reject layers of different runs: dims and sizes must agree, except for heads and grid."""

    def shape(dataset: xr.Dataset) -> dict[str, int]:
        kept = {str(dim): int(size) for dim, size in dataset.sizes.items() if dim not in ("freq", "time")}
        return {dim: (0 if dim == "head" else size) for dim, size in kept.items()}

    first_name, first = next(iter(datasets.items()))
    for name, dataset in datasets.items():
        if shape(dataset) != shape(first):
            raise MapsError(
                f"{name} has axes {shape(dataset)}, but {first_name} has {shape(first)}. Layers of one run differ "
                "in heads, frequency and time only. Were two runs mixed?"
            )


def _checked_spectrogram(spectrogram: np.ndarray, sizes: Mapping[Any, int], grid: SpectrogramGrid) -> np.ndarray:
    log_mel = np.array(spectrogram, dtype=np.float32)
    expected = (sizes["prompt"], sizes["image"], grid.bands, grid.width)
    if log_mel.shape != expected:
        raise MapsError(
            f"The spectrogram has shape {log_mel.shape}; expected {expected} (prompts, images, bands, frames)."
        )
    if not np.isfinite(log_mel).all():
        raise MapsError("The spectrogram contains NaN or infinite values.")
    return log_mel


def label_spectrogram(log_mel: np.ndarray, grid: SpectrogramGrid) -> xr.Dataset:
    """Return the dataset of a spectrogram of shape ``(prompts, images, bands, frames)``."""
    coords: dict[str, object] = {
        dim: np.arange(size, dtype=np.int64) for dim, size in zip(("prompt", "image"), log_mel.shape, strict=False)
    }
    coords.update(axes_of(grid.cells(grid.bands, grid.width)))
    named = {"long_name": "log-mel magnitude", "units": "natural log"}
    return xr.Dataset({"log_mel": (("prompt", "image", "freq", "time"), log_mel, named)}, coords=coords)
