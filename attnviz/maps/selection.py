"""Select layers, steps, heads, an encoder or a guidance branch of maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps.layer import BRANCHES
from attnviz.maps.readouts import find_layer
from attnviz.maps.schema import build_tree, layer_datasets, root_attributes, spectrogram_dataset


def select_tree(
    tree: xr.DataTree,
    *,
    layers: str | Iterable[str] | None,
    steps: int | Iterable[int] | None,
    heads: int | Iterable[int] | None,
    encoder: int | None,
    branch: str | None,
) -> xr.DataTree:
    """Select parts of a tree; see `AttentionMaps.select`. Arrays are shared with the original if possible."""
    datasets = dict(layer_datasets(tree))
    attrs = root_attributes(tree)
    if layers is not None:
        names = [layers] if isinstance(layers, str) else list(layers)
        _refuse_none("layers", names)
        found = [find_layer(name, list(datasets)) for name in names]
        # Keep the order of the run, not the order of the argument.
        datasets = {name: dataset for name, dataset in datasets.items() if name in found}
        attrs["layers"] = list(datasets)
    if steps is not None:
        wanted = _indices("steps", steps)
        datasets = {name: _pick(name, dataset, "step", wanted) for name, dataset in datasets.items()}
        attrs["timesteps"] = next(iter(datasets.values()))["timestep"].to_numpy().tolist()
    if heads is not None:
        wanted = _indices("heads", heads)
        datasets = {name: _pick(name, dataset, "head", wanted) for name, dataset in datasets.items()}
    if encoder is not None:
        datasets = {name: _of_encoder(dataset, encoder) for name, dataset in datasets.items()}
        attrs["encoder"] = int(encoder)
    if branch is not None:
        datasets = {name: _of_branch(dataset, branch, attrs["branch"]) for name, dataset in datasets.items()}
        attrs["branch"] = branch
    return build_tree(attrs, datasets, spectrogram_dataset(tree))


def _refuse_none(what: str, values: Sequence[object]) -> None:
    if not values:
        raise MapsError(f"{what}=[] selects nothing; leave {what} out to keep all.")


def _indices(what: str, values: int | Iterable[int]) -> list[int]:
    listed = [values] if isinstance(values, int | np.integer) else list(values)
    if any(isinstance(value, bool) or not isinstance(value, int | np.integer) for value in listed):
        raise MapsError(f"{what} must be whole numbers; got {listed}.")
    if len(set(listed)) != len(listed):
        raise MapsError(f"{what}={listed} contains a duplicate.")
    _refuse_none(what, listed)
    return [int(value) for value in listed]


def _pick(name: str, dataset: xr.Dataset, dim: str, wanted: list[int]) -> xr.Dataset:
    if dim not in dataset.dims:
        raise MapsError(
            f"The {dim}s were averaged when these maps were made and cannot be selected. Trace with "
            f"keep=('{dim}',) to store them separately."
        )
    there = dataset[dim].to_numpy()
    missing = [value for value in wanted if value not in there]
    if missing:
        raise MapsError(f"{name} has no {dim} {_listed(missing)}; it has {_ranges(there)}.")
    return dataset.sel({dim: sorted(wanted)})


def _of_encoder(dataset: xr.Dataset, encoder: int) -> xr.Dataset:
    of_token = dataset["token_encoder"].to_numpy()
    if encoder not in of_token:
        raise MapsError(
            f"No stored token belongs to encoder {encoder}; available encoders: {_listed(np.unique(of_token))}."
        )
    return dataset.isel(token=np.flatnonzero(of_token == encoder))


def _of_branch(dataset: xr.Dataset, branch: str, stored: str) -> xr.Dataset:
    if branch not in BRANCHES:
        raise MapsError(f"branch={branch!r} is unknown; expected one of {', '.join(BRANCHES)}.")
    if "branch" in dataset.dims:
        return dataset.sel(branch=branch, drop=True)
    if branch != stored:
        raise MapsError(f"Only the {stored} branch is stored; trace with branch='both' to store both.")
    return dataset


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def _ranges(values: np.ndarray) -> str:
    """Format ascending integers as ranges: ``0-4, 7``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
