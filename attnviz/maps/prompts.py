"""Extract the maps of one prompt."""

from __future__ import annotations

import json

import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps.attention_maps import AttentionMaps
from attnviz.maps.schema import build_tree, layer_datasets, root_attributes, spectrogram_dataset


def maps_of_prompt(maps: AttentionMaps, prompt_index: int) -> AttentionMaps:
    """Return the maps of one prompt of a call with several prompts.

    Parameters
    ----------
    maps : AttentionMaps
        Maps of all prompts.
    prompt_index : int
        Index of the prompt, from 0.

    Raises
    ------
    MapsError
        If the prompt does not exist.
    """
    if not 0 <= prompt_index < len(maps.prompts):
        raise MapsError(f"There is no prompt {prompt_index}; there are {len(maps.prompts)}, counted from 0.")

    def only(dataset: xr.Dataset) -> xr.Dataset:
        return dataset.isel(prompt=[prompt_index]).assign_coords(prompt=[0])

    attrs = root_attributes(maps.tree)
    attrs["tokens"] = json.dumps([json.loads(attrs["tokens"])[prompt_index]])
    sound = spectrogram_dataset(maps.tree)
    layers = {name: only(dataset) for name, dataset in layer_datasets(maps.tree)}
    return AttentionMaps(build_tree(attrs, layers, None if sound is None else only(sound)))
