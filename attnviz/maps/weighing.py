"""Apply a fitted readout: divide the map of each part by its mean, resize it, and compute the weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.fitted import FittedReadout, Range, ReadoutPart
from attnviz.maps.layer import cells_of
from attnviz.maps.readouts import TokenMaps, finest, picked_tokens, pool_tokens, resample

OWN_MEAN = "times the phrase's own mean"


@dataclass(frozen=True, eq=False)
class LayerReading:
    """Maps of tokens in one layer, from which several parts can be read.

    Attributes
    ----------
    name : str
        Name of the layer.
    values : numpy.ndarray, float64, shape (steps, heads, tokens, rows, columns)
        Maps. An axis that was averaged out has size 1.
    timesteps : numpy.ndarray or None
        Timestep of each step; None if steps were averaged out.
    heads : numpy.ndarray of int or None
        Label of each head; None if heads were averaged out.
    heard : numpy.ndarray of bool, shape (columns,)
        Mask of columns that contain audio; at least one is True.
    """

    name: str
    values: np.ndarray
    timesteps: np.ndarray | None
    heads: np.ndarray | None
    heard: np.ndarray

    @classmethod
    def of(
        cls,
        name: str,
        layer: xr.DataArray,
        positions: Sequence[int] | np.ndarray,
        *,
        prompt_index: int,
        sample: int,
    ) -> LayerReading:
        """Create a reading from the tokens of a layer.

        Raises
        ------
        MapsError
            If no column of the layer contains audio.
        """
        picked = picked_tokens(layer, positions, prompt_index, sample)
        heard = ~picked["padding"].to_numpy()
        if not heard.any():
            raise MapsError(
                f"No column of {name} contains audio: the first is centred at {float(picked['time'][0]):g} s, "
                "beyond the end of the audio. The clip is too short for a readout that uses this layer."
            )
        summed = tuple(axis for axis, dim in enumerate(("step", "head")) if dim not in picked.dims)
        values = np.expand_dims(picked.to_numpy().astype(np.float64), summed)
        timesteps = picked["timestep"].to_numpy() if "step" in picked.dims else None
        heads = picked["head"].to_numpy() if "head" in picked.dims else None
        return cls(name, values, timesteps, heads, heard)

    def part(self, pool: str, head: int | None = None, timesteps: Range | None = None) -> np.ndarray:
        """Return the map ``(rows, columns)`` of the phrase for a head and timesteps, over its mean magnitude.

        Raises
        ------
        MapsError
            If the maps lack that head or a denoiser call at these timesteps, or if the pool is unknown.
        """
        tokens = self.values[self._steps(timesteps)][:, self._heads(head)].mean(axis=(0, 1))
        # Pool before scaling, so that a token with little attention keeps its small weight.
        heat = pool_tokens(tokens, pool)
        mean = np.abs(heat[:, self.heard]).mean()
        return heat / mean if mean > 0 else np.zeros_like(heat)

    def _steps(self, timesteps: Range | None) -> np.ndarray | slice:
        if timesteps is None:
            return slice(None)
        if self.timesteps is None:
            raise MapsError(
                f"The readout uses timesteps {_named(timesteps)} of {self.name} separately, but these maps were "
                "averaged over steps. Trace with keep=('step',)."
            )
        inside = (self.timesteps >= timesteps[0]) & (self.timesteps < timesteps[1])
        if not inside.any():
            there = ", ".join(f"{one:g}" for one in self.timesteps)
            raise MapsError(
                f"The readout uses timesteps {_named(timesteps)} of {self.name}, but these maps have {there}. "
                "Were steps removed, or were the maps made at other timesteps than the calibration?"
            )
        return inside

    def _heads(self, head: int | None) -> np.ndarray | slice:
        if head is None:
            return slice(None)
        if self.heads is None:
            raise MapsError(
                f"The readout uses head {head} of {self.name}, but these maps were averaged over heads. Trace "
                "with keep=('head',)."
            )
        found = self.heads == head
        if not found.any():
            raise MapsError(
                f"The readout uses head {head} of {self.name}, which has the heads {self.heads.tolist()}. "
                "Does it belong to another model, or was the selection narrowed?"
            )
        return found


def weighted_maps(
    layers: Mapping[str, xr.DataArray],
    positions: Sequence[int] | np.ndarray,
    *,
    prompt_index: int,
    sample: int,
    readout: FittedReadout,
    pool: str,
    grid: SpectrogramGrid,
    target: CellGrid | None,
) -> TokenMaps:
    """Compute the pooled map of tokens with a fitted readout.

    Parameters
    ----------
    layers, positions, prompt_index, sample, grid, target
        As for `readouts.token_maps`.
    readout : FittedReadout
    pool : str
        Method that pools the tokens, which is applied first.

    Returns
    -------
    TokenMaps
        One map, because the tokens are pooled.

    Raises
    ------
    MapsError
        If the maps lack a layer, head or timestep of the readout, or if one of its layers has no column with
        audio.
    """
    missing = [name for name in readout.layers if name not in layers]
    if missing:
        raise MapsError(
            f"The readout {readout.name!r} uses {', '.join(missing)}, but these maps contain {', '.join(layers)}. "
            "Does it belong to another model, or was the selection narrowed?"
        )
    total: np.ndarray | float = 0.0
    cells = {name: cells_of(layers[name], grid) for name in readout.layers}
    chosen = finest(list(cells.values())) if target is None else target
    for name in readout.layers:
        reading = LayerReading.of(name, layers[name], positions, prompt_index=prompt_index, sample=sample)
        own = [part for part in readout.parts if part.layer == name]
        # Resizing is linear, so compute the weighted sum on the grid of the layer and resize once.
        weighed = sum(part.weight * reading.part(pool, part.head, part.timesteps) for part in own)
        total = total + resample(np.asarray(weighed), cells[name], chosen)
    return TokenMaps(np.asarray(total)[None], chosen, readout.layers, OWN_MEAN)


def part_curves(
    layers: Mapping[str, xr.DataArray],
    positions: Sequence[int] | np.ndarray,
    parts: Sequence[ReadoutPart],
    *,
    prompt_index: int,
    sample: int,
    target: CellGrid,
) -> np.ndarray:
    """Return the activation ``(parts, columns)`` of a phrase for each part, as if it were the whole readout.

    Tokens are averaged. The activation of a readout is the weighted sum of these curves.

    Raises
    ------
    MapsError
        As for `weighted_maps`.
    """
    readings: dict[str, LayerReading] = {}
    curves = []
    for part in parts:
        if part.layer not in readings:
            reading = LayerReading.of(
                part.layer, layers[part.layer], positions, prompt_index=prompt_index, sample=sample
            )
            readings[part.layer] = reading
        heat = readings[part.layer].part("mean", part.head, part.timesteps)
        curves.append(resample(heat, cells_of(layers[part.layer], target.grid), target).mean(axis=0))
    return np.array(curves)


def _named(timesteps: Range) -> str:
    return f"{timesteps[0]:g} to {timesteps[1]:g}"
