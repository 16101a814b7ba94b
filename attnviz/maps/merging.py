"""Merge the maps of runs that differ only in their seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps.schema import build_tree, layer_datasets, provenance_text, root_attributes, spectrogram_dataset

MAY_DIFFER = frozenset(
    {
        *("seed", "seeds", "latents", "generator", "num_images_per_prompt", "images"),
        *("created", "date", "time", "started", "finished", "elapsed", "duration_s"),
        *("out", "path", "warnings", "merged"),
    }
)
"""Names of provenance fields, at any depth, that may differ between runs with the same settings."""

_NAMES = {
    "layers": "layers",
    "levels": "grids of the model",
    "branch": "branch",
    "encoder": "encoder selected",
    "timesteps": "steps (timesteps of the denoiser calls)",
    "grid": "grid (size, sampling rate or audio length)",
    "quantity": "quantity",
    "method": "method",
    "family": "family of the model",
    "complete": "completeness (one run was interrupted)",
}
_ACTING = {
    "weights": "effective weights: other weights, or a LoRA that is on, off or fused",
    "state": "module state: FreeU, attention processors, adapter scales or hooks",
    "inputs": "module inputs: embeddings, masks, a control image, its scale or guidance by embedding",
}
"""Quantities covered by the digests of `attnviz.capture.identity`."""
_ABSENT = "(absent)"


def merge_trees(trees: Sequence[xr.DataTree]) -> xr.DataTree:
    """Concatenate trees along the image axis; see `AttentionMaps.merge`."""
    if not trees:
        raise MapsError("There is nothing to merge; give at least one AttentionMaps.")
    first = trees[0]
    for index, other in enumerate(trees[1:], start=1):
        _check_same(first, other, index)
    layers = [dict(layer_datasets(tree)) for tree in trees]
    joined = {name: _join([run[name] for run in layers]) for name in layers[0]}
    sounds = [sound for sound in map(spectrogram_dataset, trees) if sound is not None]
    attrs = root_attributes(first)
    attrs["provenance"] = _joint_provenance(trees)
    return build_tree(attrs, joined, _join(sounds) if sounds else None)


def _join(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    joined = xr.concat(
        datasets, dim="image", data_vars="minimal", coords="minimal", compat="override", join="override",
        combine_attrs="override",
    )  # fmt: skip
    return joined.assign_coords(image=np.arange(joined.sizes["image"], dtype=np.int64))


def _check_same(first: xr.DataTree, other: xr.DataTree, index: int) -> None:
    """Raise an error that gives the first field in which two runs differ."""

    def refuse(field: str, a: object, b: object) -> None:
        raise MapsError(
            f"Maps 0 and {index} differ in {field}: {_brief(a)} and {_brief(b)}. Only runs that differ in "
            "nothing but their seeds can be merged."
        )

    prompts = [[json.loads(table) for table in json.loads(tree.attrs["tokens"])] for tree in (first, other)]
    texts = [[table.get("prompt") for table in tables] for tables in prompts]
    if texts[0] != texts[1]:
        refuse("prompt", *texts)
    if prompts[0] != prompts[1]:
        refuse("token table (same prompt, another tokenizer or encoder)", "one table", "another")
    settings = [json.loads(tree.attrs["provenance"]) for tree in (first, other)]
    difference = _first_difference(*settings)
    if difference is not None:
        field, a, b = difference
        kind = _ACTING.get(field.partition(".")[0])
        refuse(f"{field} ({kind})" if kind else field, a, b)
    for field, name in _NAMES.items():
        a, b = (tree.attrs.get(field, _ABSENT) for tree in (first, other))
        if a != b:
            refuse(name, a, b)
    pairs = zip(layer_datasets(first), layer_datasets(other), strict=True)
    for (name, a), (_, b) in pairs:
        kept = [{dim: size for dim, size in ds.sizes.items() if dim != "image"} for ds in (a, b)]
        if kept[0] != kept[1]:
            refuse(f"captured axes of {name}", *kept)
        strides = [list(ds["attention"].attrs["stride"]) for ds in (a, b)]
        if strides[0] != strides[1]:
            refuse(f"stride of {name}", *strides)
        for dim in ("token", "step", "head"):
            if dim in a.dims and not np.array_equal(a[dim], b[dim]):
                refuse(f"{dim}s of {name}", a[dim].to_numpy().tolist(), b[dim].to_numpy().tolist())
    have = [spectrogram_dataset(tree) is not None for tree in (first, other)]
    if have[0] != have[1]:
        refuse("spectrogram", *("kept" if kept_one else "not kept" for kept_one in have))


def _first_difference(a: Any, b: Any, field: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if key in MAY_DIFFER:
                continue
            where = f"{field}.{key}" if field else str(key)
            found = _first_difference(a.get(key, _ABSENT), b.get(key, _ABSENT), where)
            if found is not None:
                return found
        return None
    # Compare as text: NaN then equals NaN, and 1 differs from 1.0 and true.
    return None if json.dumps(a) == json.dumps(b) else (field, a, b)


def _joint_provenance(trees: Sequence[xr.DataTree]) -> str:
    """Return the settings of the first run, with the fields specific to each run under ``merged``."""
    runs: list[dict[str, Any]] = []
    for tree in trees:
        provenance = json.loads(tree.attrs["provenance"])
        images = next(layer_datasets(tree))[1].sizes["image"]
        runs += provenance.get("merged") or [{**_own_fields(provenance), "images": int(images)}]
    common = json.loads(trees[0].attrs["provenance"])
    return provenance_text({**_without_own(common), "merged": runs})


def _own_fields(value: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for key, item in value.items():
        if key in MAY_DIFFER:
            own[key] = item
        elif isinstance(item, dict):
            nested = _own_fields(item)
            if nested:
                own[key] = nested
    return own


def _without_own(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_own(item) if isinstance(item, dict) else item
        for key, item in value.items()
        if key not in MAY_DIFFER
    }


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
