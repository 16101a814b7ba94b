"""Explain a clip with every method, and score the maps."""

from __future__ import annotations

import time
from typing import Any

from alignment_parts.material import Item
from overhead_parts.memory import PeakMemory

import attnviz
from attnviz.alignment.methods import MAP
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps

SCORES = ("roc_auc", "average_precision", "iou", "onset_distance")
COSTS = ("seconds", "memory_mib", "completeness_error", "efficiency_error")
BASE = "attention"
FITTED = "fitted"
CONTROLS = ("constant", "energy", "reversed")
KEY = ("clip", "label", "source")


def measure(pipe: Any, item: Item, settings: Any) -> list[dict[str, Any]]:
    """Explain a clip with every method.

    Returns
    -------
    list of dict
        A row per phrase and method, or control: `KEY`, ``method``, ``column_ms``, `SCORES`, and `COSTS` of the
        whole clip: seconds, peak memory above what was there before, and the errors that the method has measured
        of itself.
    """
    rows: list[dict[str, Any]] = []
    memory = PeakMemory()
    for name in settings.methods:
        memory.restart()
        start = time.perf_counter()
        maps = attnviz.explain(
            pipe,
            item.audio,
            item.caption,
            method=name,
            timesteps=settings.timesteps,
            draws=settings.draws,
            seed=item.seed,
            normalize=item.normalize,
        )
        costs = {
            "seconds": time.perf_counter() - start,
            "memory_mib": (memory.peak() + memory.device_peak()) / 2**20,
            **{error: maps.provenance["attribution"].get(error) for error in COSTS[2:]},
        }
        rows += [row | costs for row in _scored(maps, item, "mean", name)]
        if name == BASE:
            rows += _scored(maps, item, "mean", None)
            try:
                rows += _scored(maps, item, FITTED, f"{BASE}, {FITTED}")
            except MapsError as error:
                print(f"no fitted readout: {error}")
    return rows


def _scored(maps: AttentionMaps, item: Item, readout: str, name: str | None) -> list[dict[str, Any]]:
    """Return the scores of maps under a name, or of the controls."""
    table = attnviz.align(maps, item.events, readout=readout, masks=item.masks).table
    chosen = table[table["method"] == MAP] if name else table[table["method"].isin(CONTROLS)]
    chosen = chosen.assign(clip=item.name)[[*KEY, "method", "column_ms", *SCORES]]
    if name:
        chosen = chosen.assign(method=name)
    return [dict(row) for row in chosen.to_dict("records")]
