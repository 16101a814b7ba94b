"""Select the maps of a page: every word, with as many readouts and denoising steps as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps
from attnviz.maps.fitted import FittedReadout
from attnviz.maps.layer import short_name
from attnviz.maps.readouts import OWN_SHARE
from attnviz.maps.settling import BUNDLED, FITTED, is_of_bundled
from attnviz.maps.sharp import SHARP
from attnviz.report.items import Item
from attnviz.report.quantised import array_text, quantise

_NAMED = {
    "mean": "mean of all layers",
    "auffusion": "Auffusion's rule",
    FITTED: "fitted (bundled model)",
    SHARP: "sharp (spectrogram)",
}
_SCALE = 36  # bytes of the scale of a map in the page


@dataclass
class Readings:
    """Quantised maps of all items.

    Attributes
    ----------
    readouts : list of dict
        Readouts in the format of the page: name, label, quantity, grid, scale of each map and the bytes of all
        maps.
    steps : list of int
        Denoiser calls shown individually, ascending; empty if steps were not stored or do not fit.
    notices : list of str
        Omitted content, with reasons.
    """

    readouts: list[dict[str, Any]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_all(maps: AttentionMaps, items: Sequence[Item], *, prompt_index: int, sample: int, room: int) -> Readings:
    """Read the maps of all items.

    Parameters
    ----------
    maps : AttentionMaps
    items : sequence of Item
    prompt_index, sample : int
    room : int
        Available bytes for all maps (one byte per cell) and their scales.

    Raises
    ------
    MapsError
        If not even one map of each item fits.
    """
    found = Readings()
    chosen: dict[str, xr.DataArray] = {}
    left = room // len(items)
    unfit = []
    for name in _readouts(maps):
        try:
            first = items[0].read(maps, readout=name, prompt_index=prompt_index, sample=sample)
        except MapsError as error:  # readout not available for these maps
            found.notices.append(f"The readout “{_NAMED.get(name, short_name(name))}” is not available. {error}")
            continue
        if first.size + _SCALE <= left:
            chosen[name] = first
            left -= first.size + _SCALE
        else:
            unfit.append(short_name(name))
    if not chosen:
        raise MapsError(
            f"{len(items)} maps take more than the {room / 1e6:.1f} MB available in a page. Is the clip very "
            "long? Explain a part of it."
        )
    if unfit:
        found.notices.append(f"Omitted to keep the page small: the readouts {', '.join(unfit)}.")
    # The weights of the fitted readout apply to all timesteps together, and sharp maps take much room.
    by_step = [name for name in chosen if name not in (FITTED, SHARP)]
    found.steps = _steps(maps, left, sum(chosen[name].size + _SCALE for name in by_step))
    kept = len(maps.timesteps) if _keeps_steps(maps) else 0
    if len(found.steps) < kept:
        found.notices.append(
            f"{len(found.steps)} of {kept} denoising steps are shown individually (evenly spaced) to keep the "
            "page small; the average is over all."
        )
    for name, first in chosen.items():
        narrow = maps if name in _NAMED else maps.select(layers=name)
        steps = found.steps if name in by_step else []
        views = [narrow, *(narrow.select(steps=step) for step in steps)]
        heats = [
            item.read(view, readout=name, prompt_index=prompt_index, sample=sample).to_numpy()
            for view in views
            for item in items
        ]
        found.readouts.append(_packed(name, first, heats, stepped=bool(steps)))
    return found


def shown_name(readout: str) -> str:
    """Return the page's name of a readout, given its name in a table of scores."""
    if readout.startswith(FITTED) and BUNDLED.is_file() and readout == FittedReadout.load(BUNDLED).name:
        return FITTED
    if readout.split(" ", maxsplit=1)[0] == SHARP:
        return SHARP
    return readout if readout in _NAMED else short_name(readout)


def readout_label(readout: str) -> str:
    """Return the displayed name of a readout, given its name in a table of scores."""
    name = shown_name(readout)
    return _NAMED.get(name, name)


def _readouts(maps: AttentionMaps) -> list[str]:
    fitted = [FITTED] if is_of_bundled(maps.provenance) and BUNDLED.is_file() else []
    # Auffusion's rule is of grids of several sizes; sharp maps divide a spectrogram.
    auffusion = ["auffusion"] if maps.grid.has_freq else []
    sharp = [SHARP] if maps.grid.has_freq and maps.spectrogram is not None else []
    return ["mean", *fitted, *auffusion, *maps.layers, *sharp]


def _keeps_steps(maps: AttentionMaps) -> bool:
    return "step" in maps[maps.layers[0]].dims


def _steps(maps: AttentionMaps, left: int, size: int) -> list[int]:
    """Select as many evenly spaced steps as fit, including the first and the last."""
    if not _keeps_steps(maps) or size == 0:
        return []
    there = maps[maps.layers[0]]["step"].to_numpy()
    number = min(len(there), left // size)
    if number == 1:
        return [int(there[-1])]
    return [int(there[at]) for at in np.unique(np.linspace(0, len(there) - 1, number).round().astype(int))]


def _packed(name: str, first: xr.DataArray, heats: Sequence[np.ndarray], *, stepped: bool) -> dict[str, Any]:
    packed = [quantise(heat) for heat in heats]
    columns = first.sizes["time"]
    rows = first.sizes.get("freq", 1)
    size = f"{rows} x {columns}" if "freq" in first.dims else f"{columns} columns"
    quantity = str(first.attrs["long_name"])
    heard = ~first["padding"].to_numpy()
    return {
        "name": name if name in _NAMED else short_name(name),
        "label": _NAMED.get(name, f"{short_name(name)} ({size})"),
        "layer": name not in _NAMED,
        "quantity": quantity,
        "percent": "probabilit" in quantity or quantity == OWN_SHARE,
        "rows": rows,
        "columns": columns,
        "heard": int(heard.sum()),
        "stepped": stepped,
        "low": [low for _, low, _ in packed],
        "high": [high for _, _, high in packed],
        "data": array_text(np.stack([data for data, _, _ in packed])),
    }
