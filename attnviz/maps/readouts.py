"""Readouts: how layers, heads and denoiser calls become one map of a token.

``"mean"`` is DAAM's rule (every layer resized to the finest grid, then averaged), ``"auffusion"`` the rule of
Auffusion's authors, and a layer's name reads that layer alone. Weights that were fitted are in
`attnviz.maps.weighing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps.layer import short_name

POOLS = ("mean", "max", "first", "last")
PROBABILITY = "attention probability"
OWN_SHARE = "share of the token's own maximum"

Level = tuple[int, int]


@dataclass(frozen=True)
class TokenMaps:
    """Maps of some tokens on one grid.

    Attributes
    ----------
    values : numpy.ndarray, float64, shape (tokens, rows, columns)
        Row 0 is the lowest frequency.
    layers : tuple of str
        Layers that were read.
    quantity : str
        What a value is.
    """

    values: np.ndarray
    layers: tuple[str, ...]
    quantity: str


def token_maps(
    layers: Mapping[str, xr.DataArray],
    positions: Sequence[int] | np.ndarray,
    *,
    prompt_index: int,
    sample: int,
    readout: str,
    shape: Level | None,
    levels: Sequence[Level],
) -> TokenMaps:
    """Read the maps of some tokens.

    Parameters
    ----------
    layers : mapping of str to xarray.DataArray
        The layers at hand.
    positions : sequence of int
        Key positions, all of them stored.
    prompt_index, sample : int
        Which prompt, and which of its samples (images), both from 0.
    readout : str
        ``"mean"``, ``"auffusion"``, or a layer's name.
    shape : (rows, columns) or None
        Grid of the result; None: the finest among the layers read.
    levels : sequence of (rows, columns)
        All grids of the model, finest first.

    Raises
    ------
    MapsError
        If the readout is unknown, or its layers are not at hand.
    """
    names = _layers_of(readout, layers, levels)
    native = [_native(layers[name], positions, prompt_index, sample) for name in names]
    if readout == "auffusion":
        # One level: the layers share their grid. Each token is divided by its own maximum there,
        # before any resizing, over all of its cells, as the authors do. The magnitude is taken, so
        # that the map of a word with a negative weight is that of the same word, negated.
        mean = np.mean(native, axis=0)
        highest = np.abs(mean).max(axis=(-2, -1), keepdims=True)
        relative = np.divide(mean, highest, out=np.zeros_like(mean), where=highest > 0)
        values = relative if shape is None else resize(relative, shape)
        return TokenMaps(values, names, OWN_SHARE)
    target = shape or max((values.shape[-2:] for values in native), key=lambda size: size[0] * size[1])
    return TokenMaps(np.mean([resize(values, target) for values in native], axis=0), names, PROBABILITY)


def pool_tokens(values: np.ndarray, pool: str) -> np.ndarray:
    """Pool the maps of a phrase's tokens, shape (tokens, rows, columns), into one.

    ``max`` takes, in each cell, the value of the largest magnitude: the highest, where none is negative.

    Raises
    ------
    MapsError
        If the pool is not one of ``mean``, ``max``, ``first``, ``last``.
    """
    if pool == "mean":
        return values.mean(axis=0)
    if pool == "max":
        strongest = np.abs(values).argmax(axis=0)
        return np.take_along_axis(values, strongest[None], axis=0)[0]
    if pool == "first":
        return values[0]
    if pool == "last":
        return values[-1]
    raise MapsError(f"pool={pool!r} is unknown; it is one of {', '.join(POOLS)}.")


def find_layer(name: str, names: Sequence[str]) -> str:
    """Find a layer by its full name or by its short one (``"down.0.1"``).

    Raises
    ------
    MapsError
        If no layer, or more than one, goes by that name.
    """
    if name in names:
        return name
    matches = [full for full in names if short_name(full) == name]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(short_name(full) for full in names)
    if matches:
        raise MapsError(f"{name!r} is short for several layers: {', '.join(matches)}. Give the full name.")
    raise MapsError(f"There is no layer {name!r}. There are: {known} (or their full names, as {names[0]!r}).")


def resize(values: np.ndarray, shape: Level) -> np.ndarray:
    """Resize the last two axes bilinearly.

    The same numbers as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, in float64.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., rows, columns)
    shape : (int, int)
        Rows and columns wanted.
    """
    if values.shape[-2:] == tuple(shape):
        return values
    down = _bilinear(values.shape[-2], shape[0])
    across = _bilinear(values.shape[-1], shape[1])
    return down @ values @ across.T


@lru_cache(maxsize=64)
def _bilinear(size: int, wanted: int) -> np.ndarray:
    """Weights, shape (wanted, size), of linear interpolation between cell centres; the edges are held."""
    centre = np.maximum((np.arange(wanted) + 0.5) * (size / wanted) - 0.5, 0.0)
    lower = np.minimum(np.floor(centre).astype(int), size - 1)
    upper = np.minimum(lower + 1, size - 1)
    share = centre - lower
    weights = np.zeros((wanted, size))
    row = np.arange(wanted)
    np.add.at(weights, (row, lower), 1 - share)
    np.add.at(weights, (row, upper), share)
    weights.flags.writeable = False
    return weights


def picked_tokens(
    layer: xr.DataArray, positions: Sequence[int] | np.ndarray, prompt_index: int, sample: int
) -> xr.DataArray:
    """Pick tokens of one prompt's image, of two branches the conditional: [step], [head], token, freq, time."""
    picked = layer.isel(prompt=prompt_index, image=sample)
    if "branch" in picked.dims:
        picked = picked.sel(branch="conditional")
    return picked.sel(token=np.asarray(positions))


def _native(
    layer: xr.DataArray, positions: Sequence[int] | np.ndarray, prompt_index: int, sample: int
) -> np.ndarray:
    """Maps of the tokens on the layer's own grid, float64, averaged over kept steps and heads."""
    picked = picked_tokens(layer, positions, prompt_index, sample)
    averaged = tuple(picked.dims.index(dim) for dim in ("step", "head") if dim in picked.dims)
    return picked.to_numpy().mean(axis=averaged, dtype=np.float64)


def _layers_of(readout: str, layers: Mapping[str, xr.DataArray], levels: Sequence[Level]) -> tuple[str, ...]:
    if readout == "mean":
        return tuple(layers)
    if readout == "auffusion":
        return _auffusion_layers(layers, levels)
    try:
        return (find_layer(readout, list(layers)),)
    except MapsError as error:
        raise MapsError(
            f"Unknown readout: it is 'mean', 'auffusion', 'fitted', a layer, or a FittedReadout. {error}"
        ) from error


def _auffusion_layers(layers: Mapping[str, xr.DataArray], levels: Sequence[Level]) -> tuple[str, ...]:
    """Down and up layers of the second-finest grid (16 x 64 where the finest is 32 x 128)."""
    if len(levels) < 2:
        raise MapsError(
            f"The 'auffusion' readout is of the second-finest grid, and this model has one grid only: "
            f"{_named(levels)}. Use readout='mean' or a layer."
        )
    level = tuple(levels[1])
    names = tuple(
        name
        for name, layer in layers.items()
        if layer.shape[-2:] == level and layer.attrs["place"] in ("down", "up")
    )
    if not names:
        there = sorted({(int(layer.shape[-2]), int(layer.shape[-1])) for layer in layers.values()}, reverse=True)
        raise MapsError(
            f"The 'auffusion' readout is of the down and up layers of the second-finest grid ({_named([level])}), "
            f"and none is here; the layers at hand have {_named(there)}. Was the selection narrowed?"
        )
    return names


def _named(levels: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{level[0]} x {level[1]}" for level in levels)
