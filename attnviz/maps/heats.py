"""Read the heat map of tokens with any readout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps.fitted import FittedReadout
from attnviz.maps.layer import axes_of
from attnviz.maps.phrases import phrase_positions
from attnviz.maps.readouts import TokenMaps, pool_tokens, token_maps
from attnviz.maps.settling import Readout, readout_name, settled
from attnviz.maps.sharp import QUANTITY, SharpReadout, own_cells, sharpened
from attnviz.maps.weighing import weighted_maps
from attnviz.text.content import sound_phrases

if TYPE_CHECKING:
    from attnviz.audio.grid import CellGrid
    from attnviz.maps.attention_maps import AttentionMaps


def read_heat(
    maps: AttentionMaps,
    positions: np.ndarray,
    phrase: str,
    *,
    prompt_index: int,
    sample: int,
    readout: Readout,
    pool: str,
    grid: str,
) -> xr.DataArray:
    """Return the heat map of tokens; see `AttentionMaps.heatmap`.

    Parameters
    ----------
    maps : AttentionMaps
    positions : numpy.ndarray of int
        Stored key positions of the tokens.
    phrase : str
        Their name in the result.
    prompt_index, sample, readout, pool, grid
        As for `AttentionMaps.heatmap`.
    """
    if not 0 <= sample < maps.images:
        raise MapsError(f"There is no sample {sample}; each prompt has {maps.images}, from 0.")
    if grid not in ("finest", "image"):
        raise MapsError(f"grid={grid!r} is unknown; expected 'finest' or 'image'.")
    chosen = settled(readout, maps.provenance)
    target = None if grid == "finest" else maps.grid.cells(maps.grid.bands, maps.grid.width)
    read = _read(maps, positions, prompt_index, sample, chosen, pool, target)
    heat = read.values[0].astype(np.float32)
    return xr.DataArray(
        heat if maps.grid.has_freq else heat[0],
        dims=("freq", "time") if maps.grid.has_freq else ("time",),
        coords=axes_of(read.cells),
        name="heatmap",
        attrs={
            "long_name": read.quantity,
            "phrase": phrase,
            "prompt": maps.prompts[prompt_index],
            "image": sample,
            "positions": positions.tolist(),
            "readout": readout_name(chosen),
            "pool": pool,
            "layers": ", ".join(read.layers),  # NetCDF 3 cannot store lists of text
            "stride": list(read.cells.stride),
        },
    )


def _read(
    maps: AttentionMaps,
    positions: np.ndarray,
    prompt_index: int,
    sample: int,
    readout: Readout,
    pool: str,
    target: CellGrid | None,
) -> TokenMaps:
    """Return one map, of the pooled tokens."""
    if isinstance(readout, SharpReadout):
        return _sharp(maps, positions, prompt_index, sample, readout, pool, target)
    layers = {name: maps[name] for name in maps.layers}
    if isinstance(readout, FittedReadout):
        return weighted_maps(
            layers, positions, prompt_index=prompt_index, sample=sample, readout=readout, pool=pool,
            grid=maps.grid, target=target,
        )  # fmt: skip
    levels = [(int(rows), int(columns)) for rows, columns in maps.tree.attrs["levels"]]
    read = token_maps(
        layers, positions, prompt_index=prompt_index, sample=sample, readout=readout, grid=maps.grid,
        target=target, levels=levels,
    )  # fmt: skip
    return TokenMaps(pool_tokens(read.values, pool)[None], read.cells, read.layers, read.quantity)


def _sharp(
    maps: AttentionMaps,
    positions: np.ndarray,
    prompt_index: int,
    sample: int,
    readout: SharpReadout,
    pool: str,
    target: CellGrid | None,
) -> TokenMaps:
    if not maps.grid.has_freq:
        raise MapsError(
            "readout='sharp' divides the spectrogram, and these maps have no frequency axis: the model's latents "
            "or codes are a sequence in time. Use another readout."
        )
    if maps.spectrogram is None:
        raise MapsError(
            "readout='sharp' refines maps by the spectrogram of their clip, and these maps have none: the "
            "pipeline returned latents, or is no model of spectrograms. Use another readout."
        )
    cells = maps.grid.cells(maps.grid.bands, maps.grid.width)
    chosen = own_cells(maps.grid) if target is None else target
    base = settled(readout.base, maps.provenance)
    own = _read(maps, positions, prompt_index, sample, base, pool, cells)
    others = [
        _read(maps, other, prompt_index, sample, base, pool, cells).values[0]
        for other in _other_phrases(maps, positions, prompt_index)
    ]
    log_mel = maps.spectrogram[prompt_index, sample].to_numpy()
    value = sharpened(own.values[0], others, log_mel, cells, chosen)
    return TokenMaps(value[None], chosen, own.layers, QUANTITY)


def sounding_phrases(maps: AttentionMaps, prompt_index: int = 0) -> list[tuple[int, int]]:
    """Return the spans of the phrases of a prompt that may name a sound and were stored in full."""
    words = [word.span for word in maps.occurrences(prompt_index)]
    return sound_phrases(maps.prompts[prompt_index], words)


def _other_phrases(maps: AttentionMaps, positions: np.ndarray, prompt_index: int) -> list[np.ndarray]:
    """Return the key positions of the phrases that may name a sound and share no token with the given ones."""
    table = maps.tokens[prompt_index]
    found = [
        phrase_positions(table, span, None, stored=maps.positions, encoder=maps.encoder)
        for span in sounding_phrases(maps, prompt_index)
    ]
    return [other for other in found if not np.isin(other, positions).any()]
