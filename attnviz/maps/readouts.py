"""Readouts: how layers, heads and denoiser calls become one map of a token.

``"mean"`` averages all layers, each of which is averaged over its heads and denoiser calls and resized bilinearly
to the finest grid, ``"auffusion"`` is the rule of Auffusion's authors, and a layer's name reads that layer alone.
Weights that were fitted are in `attnviz.maps.weighing`.

Notes
-----
Differences of ``"mean"`` from DAAM (Tang et al., arXiv 2210.04885), whose idea it is: DAAM resizes bicubically,
sums pairs of layer and head, so that a layer of more heads has more weight, and leaves out the middle block and
the coarsest level. Here resizing is bilinear, every layer counts once, and all layers count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.layer import cells_of, short_name

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
    cells : CellGrid
        What second and what Hz they are.
    layers : tuple of str
        Layers that were read.
    quantity : str
        What a value is.
    """

    values: np.ndarray
    cells: CellGrid
    layers: tuple[str, ...]
    quantity: str


def token_maps(
    layers: Mapping[str, xr.DataArray],
    positions: Sequence[int] | np.ndarray,
    *,
    prompt_index: int,
    sample: int,
    readout: str,
    grid: SpectrogramGrid,
    target: CellGrid | None,
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
    grid : SpectrogramGrid
        The maps' grid.
    target : CellGrid or None
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
    cells = [cells_of(layers[name], grid) for name in names]
    chosen = finest(cells) if target is None else target
    if readout == "auffusion":
        # One level: the layers share their grid. Each token is divided by its own maximum there,
        # before any resizing, over all of its cells, as the authors do. The magnitude is taken, so
        # that the map of a word with a negative weight is that of the same word, negated.
        mean = np.mean(native, axis=0)
        highest = np.abs(mean).max(axis=(-2, -1), keepdims=True)
        relative = np.divide(mean, highest, out=np.zeros_like(mean), where=highest > 0)
        return TokenMaps(resample(relative, cells[0], chosen), chosen, names, OWN_SHARE)
    values = np.mean([resample(one, own, chosen) for one, own in zip(native, cells, strict=True)], axis=0)
    return TokenMaps(values, chosen, names, PROBABILITY)


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
    """Resize the last two axes bilinearly, each taken to divide the same whole evenly.

    The same numbers as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, in float64.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., rows, columns)
    shape : (int, int)
        Rows and columns wanted.
    """
    if values.shape[-2:] == tuple(shape):
        return values
    down, across = (
        linear_weights(size, wanted, size / wanted) for size, wanted in zip(values.shape[-2:], shape, strict=True)
    )
    return down @ values @ across.T


def resample(values: np.ndarray, source: CellGrid, target: CellGrid) -> np.ndarray:
    """Bring the last two axes from one grid of a spectrogram to another: bilinear between the centres of cells.

    Columns that hold audio are made of columns that do: what a layer has in its padding takes no part in them.
    Columns of padding are made of all. Edges are held.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., rows, columns)
        Row 0 is the lowest frequency.
    source, target : CellGrid
        Grids over the same spectrogram.
    """
    if source == target:
        return values
    (rows, columns), (rows_wanted, columns_wanted) = source.shape, target.shape
    # Cells count from the top of the image, and rows from the lowest frequency: both are turned over.
    down = linear_weights(rows, rows_wanted, target.stride[0] / source.stride[0])[::-1, ::-1]
    heard = max(1, int((~source.padding).sum()))  # the audio begins in the first column, however short it is
    across = linear_weights(
        columns, columns_wanted, target.stride[1] / source.stride[1], heard, int((~target.padding).sum())
    )
    return down @ values @ across.T


def finest(grids: Sequence[CellGrid]) -> CellGrid:
    """Return the grid of the most cells, the first of equals."""
    return max(grids, key=lambda cells: cells.shape[0] * cells.shape[1])


@lru_cache(maxsize=128)
def linear_weights(
    size: int, wanted: int, ratio: float, heard: int | None = None, heard_wanted: int | None = None
) -> np.ndarray:
    """Return weights, shape (wanted, size), of linear interpolation between cell centres; the edges are held.

    Parameters
    ----------
    size, wanted : int
        Cells there are, and cells wanted.
    ratio : float
        Width of a wanted cell, in cells there are; both begin at the same edge.
    heard, heard_wanted : int, optional
        Cells, from the first on, that hold audio: the wanted ones of these are made of these alone.
    """
    limit = np.full(wanted, size - 1)
    if heard is not None:
        limit[:heard_wanted] = heard - 1
    centre = np.clip((np.arange(wanted) + 0.5) * ratio - 0.5, 0.0, limit)
    lower = np.floor(centre).astype(int)
    upper = np.minimum(lower + 1, limit)
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
