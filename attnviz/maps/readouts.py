"""Readouts: combine layers, heads and denoiser calls into one map per token.

``"mean"`` averages each layer over heads and denoiser calls, resizes it bilinearly to the finest grid, and
averages all layers; it is defined for every model. ``"auffusion"`` is the rule of the Auffusion authors, defined
for U-Nets of several levels. The name of a layer uses that layer only. For fitted weights, see
`attnviz.maps.weighing`.

Notes
-----
``"mean"`` follows DAAM (Tang et al., arXiv 2210.04885) with three differences. DAAM resizes bicubically;
``"mean"`` resizes bilinearly. DAAM sums over pairs of layer and head, so a layer with more heads has a larger
weight; ``"mean"`` weights all layers equally. DAAM omits the middle block and the coarsest level; ``"mean"``
includes all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from attnviz.arguments import public, whole_number
from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.layer import PROBABILITY, cells_of, level_of, short_name

_MOST_CELLS = 2**16  # rows or columns of a map
POOLS = ("mean", "max", "first", "last")
OWN_SHARE = "share of the token's own maximum"

Level = tuple[int, int]


@dataclass(frozen=True)
class TokenMaps:
    """Maps of tokens on one grid.

    Attributes
    ----------
    values : numpy.ndarray, float64, shape (tokens, rows, columns)
        Row 0 is the lowest frequency.
    cells : CellGrid
        Grid of the maps in seconds and Hz.
    layers : tuple of str
        Layers used.
    quantity : str
        Name of the quantity.
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
    """Compute the maps of tokens.

    Parameters
    ----------
    layers : mapping of str to xarray.DataArray
        Available layers.
    positions : sequence of int
        Stored key positions.
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    readout : str
        ``"mean"``, ``"auffusion"``, or the name of a layer.
    grid : SpectrogramGrid
        Grid of the spectrogram.
    target : CellGrid or None
        Grid of the result. None selects the finest grid among the layers used.
    levels : sequence of (rows, columns)
        All grids of the model, finest first.

    Raises
    ------
    MapsError
        If the readout is unknown, or if its layers are not available.
    """
    names = _layers_of(readout, layers, levels)
    native = [_native(layers[name], positions, prompt_index, sample) for name in names]
    cells = [cells_of(layers[name], grid) for name in names]
    chosen = finest(cells) if target is None else target
    if readout == "auffusion":
        # The layers of one level share a grid. As in the authors' code, divide each token by its maximum over all
        # cells before resizing. Use magnitudes, so that a negative word weight gives the negated map.
        mean = np.mean(native, axis=0)
        highest = np.abs(mean).max(axis=(-2, -1), keepdims=True)
        relative = np.divide(mean, highest, out=np.zeros_like(mean), where=highest > 0)
        return TokenMaps(resample(relative, cells[0], chosen), chosen, names, OWN_SHARE)
    values = np.mean([resample(one, own, chosen) for one, own in zip(native, cells, strict=True)], axis=0)
    quantity = str(layers[names[0]].attrs.get("long_name", PROBABILITY))
    return TokenMaps(values, chosen, names, quantity)


def pool_tokens(values: np.ndarray, pool: str) -> np.ndarray:
    """Pool the maps of the tokens of a phrase, shape (tokens, rows, columns), into one.

    ``max`` selects the value of largest magnitude in each cell.

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
    raise MapsError(f"pool={pool!r} is unknown; expected one of {', '.join(POOLS)}.")


def find_layer(name: str, names: Sequence[str]) -> str:
    """Return the full name of a layer, given its full or short name (``"down.0.1"``).

    Raises
    ------
    MapsError
        If the name matches no layer or several.
    """
    if name in names:
        return name
    matches = [full for full in names if short_name(full) == name]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(short_name(full) for full in names)
    if matches:
        raise MapsError(f"{name!r} matches several layers: {', '.join(matches)}. Give the full name.")
    raise MapsError(f"There is no layer {name!r}. Layers: {known} (or full names such as {names[0]!r}).")


@public
def resize(values: np.ndarray, shape: Level) -> np.ndarray:
    """Resize the last two axes bilinearly, assuming that both grids divide the same area evenly.

    Equivalent to ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, in float64.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., rows, columns)
    shape : (int, int)
        Rows and columns of the result.

    Raises
    ------
    MapsError
        If `values` has fewer than two axes or no cell, or `shape` is not two positive whole numbers.
    """
    rows = whole_number("rows", shape[0], most=_MOST_CELLS, error=MapsError)
    columns = whole_number("columns", shape[1], most=_MOST_CELLS, error=MapsError)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise MapsError(f"values has the shape {values.shape}; (..., rows, columns) with cells is needed.")
    if values.shape[-2:] == (rows, columns):
        return values
    down, across = (
        linear_weights(size, wanted, size / wanted)
        for size, wanted in zip(values.shape[-2:], (rows, columns), strict=True)
    )
    return down @ values @ across.T


def resample(values: np.ndarray, source: CellGrid, target: CellGrid) -> np.ndarray:
    """Resample the last two axes from one grid of a spectrogram to another, bilinearly between cell centres.

    Columns that contain audio are interpolated from columns that contain audio only, so that padding does not leak
    into them. Padding columns are interpolated from all columns. Values are held constant beyond the outer
    centres.

    Parameters
    ----------
    values : numpy.ndarray, shape (..., rows, columns)
        Row 0 is the lowest frequency.
    source, target : CellGrid
        Grids of the same spectrogram.
    """
    if source == target:
        return values
    (rows, columns), (rows_wanted, columns_wanted) = source.shape, target.shape
    # Cell indices start at the top of the image, rows at the lowest frequency: flip both axes.
    down = linear_weights(rows, rows_wanted, target.stride[0] / source.stride[0])[::-1, ::-1]
    heard = max(1, int((~source.padding).sum()))  # the first column always contains audio
    across = linear_weights(
        columns, columns_wanted, target.stride[1] / source.stride[1], heard, int((~target.padding).sum())
    )
    return down @ values @ across.T


def finest(grids: Sequence[CellGrid]) -> CellGrid:
    """Return the grid with the most cells; the first one in a tie."""
    return max(grids, key=lambda cells: cells.shape[0] * cells.shape[1])


@lru_cache(maxsize=128)
def linear_weights(
    size: int, wanted: int, ratio: float, heard: int | None = None, heard_wanted: int | None = None
) -> np.ndarray:
    """Return weights, shape (wanted, size), of linear interpolation between cell centres, constant at the edges.

    Parameters
    ----------
    size, wanted : int
        Number of source and target cells.
    ratio : float
        Width of a target cell in source cells. Both grids start at the same edge.
    heard, heard_wanted : int, optional
        Number of leading source and target cells that contain audio. These target cells are interpolated from
        these source cells only.
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
    """Select tokens of one image, in the conditional branch: dims [step], [head], token, freq, time.

    Without a frequency axis there is one row.
    """
    picked = layer.isel(prompt=prompt_index, image=sample)
    if "branch" in picked.dims:
        picked = picked.sel(branch="conditional")
    if "freq" not in picked.dims:
        picked = picked.expand_dims("freq", axis=-2)
    return picked.sel(token=np.asarray(positions))


def _native(
    layer: xr.DataArray, positions: Sequence[int] | np.ndarray, prompt_index: int, sample: int
) -> np.ndarray:
    """Return float64 maps of tokens on the grid of the layer, averaged over stored steps and heads."""
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
            "Unknown readout; expected 'mean', 'auffusion', 'fitted', 'sharp', a layer, or a FittedReadout. "
            f"{error}"
        ) from error


def _auffusion_layers(layers: Mapping[str, xr.DataArray], levels: Sequence[Level]) -> tuple[str, ...]:
    """Return the down and up layers of the second-finest grid (16 x 64 if the finest is 32 x 128)."""
    if len(levels) < 2:
        raise MapsError(
            f"The 'auffusion' readout uses the second-finest grid, but this model has one grid only: "
            f"{_named(levels)}. Use readout='mean' or a layer."
        )
    level = tuple(levels[1])
    names = tuple(
        name
        for name, layer in layers.items()
        if level_of(layer) == level and layer.attrs["place"] in ("down", "up")
    )
    if not names:
        there = sorted({level_of(layer) for layer in layers.values()}, reverse=True)
        raise MapsError(
            f"The 'auffusion' readout uses the down and up layers of the second-finest grid ({_named([level])}), "
            f"which these maps lack; their layers have {_named(there)}. Was the selection narrowed?"
        )
    return names


def _named(levels: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{level[0]} x {level[1]}" for level in levels)
