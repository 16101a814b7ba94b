"""Applying a fitted readout: maps of its parts, each divided by its own mean, resized, weighed and added up."""

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
    """Some tokens' maps in one layer, for many parts to be taken of.

    Attributes
    ----------
    name : str
        The layer.
    values : numpy.ndarray, float64, shape (steps, heads, tokens, rows, columns)
        One step or head where that axis was summed out.
    timesteps : numpy.ndarray or None
        Timestep of each step; None where steps were summed out.
    heads : numpy.ndarray of int or None
        Label of each head; None where heads were summed out.
    heard : numpy.ndarray of bool, shape (columns,)
        Columns that hold audio, one at least.
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
        """Read tokens of a layer.

        Raises
        ------
        MapsError
            If no column of the layer holds audio.
        """
        picked = picked_tokens(layer, positions, prompt_index, sample)
        heard = ~picked["padding"].to_numpy()
        if not heard.any():
            raise MapsError(
                f"No column of {name} holds audio: its first one is centred at {float(picked['time'][0]):g} s, "
                "beyond the audio's end. The clip is too short for a readout that weighs this layer."
            )
        summed = tuple(axis for axis, dim in enumerate(("step", "head")) if dim not in picked.dims)
        values = np.expand_dims(picked.to_numpy().astype(np.float64), summed)
        timesteps = picked["timestep"].to_numpy() if "step" in picked.dims else None
        heads = picked["head"].to_numpy() if "head" in picked.dims else None
        return cls(name, values, timesteps, heads, heard)

    def part(self, pool: str, head: int | None = None, timesteps: Range | None = None) -> np.ndarray:
        """Return the phrase's map ``(rows, columns)`` of a head and of some timesteps, over its own mean.

        The mean is of magnitudes, so that a negative map is the positive one, negated.

        Raises
        ------
        MapsError
            If the maps do not hold that head, or no denoiser call at such timesteps; or the pool is unknown.
        """
        tokens = self.values[self._steps(timesteps)][:, self._heads(head)].mean(axis=(0, 1))
        # Pooled before it is scaled: a token that is hardly attended to has no more say than it had.
        heat = pool_tokens(tokens, pool)
        mean = np.abs(heat[:, self.heard]).mean()
        return heat / mean if mean > 0 else np.zeros_like(heat)

    def _steps(self, timesteps: Range | None) -> np.ndarray | slice:
        if timesteps is None:
            return slice(None)
        if self.timesteps is None:
            raise MapsError(
                f"The readout weighs timesteps {_named(timesteps)} of {self.name} apart, and the steps of these "
                "maps were summed out when they were made; make them with keep=('step',)."
            )
        inside = (self.timesteps >= timesteps[0]) & (self.timesteps < timesteps[1])
        if not inside.any():
            there = ", ".join(f"{one:g}" for one in self.timesteps)
            raise MapsError(
                f"The readout weighs timesteps {_named(timesteps)} of {self.name}, and these maps are of {there}. "
                "Were steps left out, or were the maps made at other timesteps than those of the calibration?"
            )
        return inside

    def _heads(self, head: int | None) -> np.ndarray | slice:
        if head is None:
            return slice(None)
        if self.heads is None:
            raise MapsError(
                f"The readout weighs head {head} of {self.name}, and the heads of these maps were summed out when "
                "they were made; make them with keep=('head',)."
            )
        found = self.heads == head
        if not found.any():
            raise MapsError(
                f"The readout weighs head {head} of {self.name}, which has the heads {self.heads.tolist()}. "
                "Is it of another model, or was the selection narrowed?"
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
    """Read the one map of some tokens together as a fitted readout weighs it.

    Parameters
    ----------
    layers, positions, prompt, image, grid, target
        As for `readouts.token_maps`.
    readout : FittedReadout
    pool : str
        How the tokens become one map, before anything else.

    Returns
    -------
    TokenMaps
        Of one map, since the tokens are pooled.

    Raises
    ------
    MapsError
        If the maps lack a layer, head or timestep that has a weight, or one of its layers has no column of audio.
    """
    missing = [name for name in readout.layers if name not in layers]
    if missing:
        raise MapsError(
            f"The readout {readout.name!r} weighs {', '.join(missing)}, and these maps hold {', '.join(layers)}. "
            "Is it of another model, or was the selection narrowed?"
        )
    total: np.ndarray | float = 0.0
    cells = {name: cells_of(layers[name], grid) for name in readout.layers}
    chosen = finest(list(cells.values())) if target is None else target
    for name in readout.layers:
        reading = LayerReading.of(name, layers[name], positions, prompt_index=prompt_index, sample=sample)
        own = [part for part in readout.parts if part.layer == name]
        # Weighed on the layer's own grid: resizing is linear, and done once.
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
    """Return each part's activation of a phrase, ``(parts, columns)``: what a readout of that part alone gives.

    Its tokens are averaged. The curve of a readout is the weighted sum of these.

    Raises
    ------
    MapsError
        As `weighted_maps`.
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
