"""Analyse runs: paired differences and ratios, intervals and fits for each tool."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any

import numpy as np
from harness import Estimate, Study

from overhead_parts.settings import Settings
from overhead_parts.tools import with_extras

MIB = 2**20
Record = dict[str, Any]


@dataclass
class ToolResult:
    """Costs and captured layers of a tool. Fields are None (or empty) if they were not measured."""

    name: str
    layers: int | None = None
    true_layers: int | None = None
    believed_grid: tuple[int, ...] | None = None
    latents_unchanged: bool | None = None
    own_ms: Estimate | None = None
    maps_ms_per_step: float | None = None
    maps_ms_once: float | None = None
    seconds: float | None = None
    ratio: Estimate | None = None
    ratios: list[float] = field(default_factory=list)
    more_memory: dict[int, float] = field(default_factory=dict)
    more_memory_hollow: dict[int, float] = field(default_factory=dict)
    more_host_memory: dict[int, float] = field(default_factory=dict)
    growth_per_step: float | None = None
    held: dict[int, float] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """Return one value per column for a table; memory in MiB."""
        row: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Estimate):
                row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            elif isinstance(value, dict):
                row |= {f"{name}_{steps}_steps": number for steps, number in value.items()}
            elif isinstance(value, tuple):
                row[name] = "x".join(map(str, value))
            elif name != "ratios":
                row[name] = value
        return row


@dataclass
class Results:
    """Results of the study for each tool and for no capture."""

    tools: dict[str, ToolResult]
    total_layers: int | None = None
    finest: tuple[int, ...] | None = None
    call_ms: float | None = None
    modules_ms: float | None = None
    noise_ms: Estimate | None = None


def analyse(study: Study, settings: Settings) -> Results:
    """Compare every tool with no capture, round by round.

    Parameters
    ----------
    study : Study
        Measured runs; parts may be missing.
    settings : Settings
        Settings of the study.

    Returns
    -------
    Results
        Everything that can be computed from the available runs.
    """
    results = Results({name: ToolResult(name) for name in with_extras(settings.tools)})
    own = _by_round(study.rows("own"))
    if own:
        _own_cost(results, own, {k: tuple(v) for k, v in study.rows("grids")[0]["grids"].items()})
    memory = memory_rows(study, settings)
    if memory:
        _memory(results, memory, settings)
    rounds = _by_round(study.rows("time"))
    if rounds:
        _whole_generation(results, rounds)
    whole = [r for rounds_ in rounds.values() for r in rounds_.values()] or [r for r in memory if not r["hollow"]]
    calls = [seconds for r in whole if r["tool"] == "none" for seconds in r["call_seconds"]]
    results.call_ms = 1e3 * median(calls) if calls else None
    return results


def memory_rows(study: Study, settings: Settings) -> list[Record]:
    """Return the measured runs of the memory part."""
    return [row for name in with_extras(settings.tools) for row in study.rows(f"memory-{name}")]


def _by_round(records: list[Record]) -> dict[int, dict[str, Record]]:
    rounds: dict[int, dict[str, Record]] = {}
    for record in records:
        rounds.setdefault(record["round"], {})[record["tool"]] = record
    return rounds


def _own_cost(results: Results, rounds: dict[int, dict[str, Record]], grids: dict[str, tuple[int, ...]]) -> None:
    def milliseconds(record: Record) -> float:
        return 1e3 * median(record["call_seconds"])

    def more_than_none(tool: str, other: str = "none") -> list[float]:
        return [milliseconds(runs[tool]) - milliseconds(runs[other]) for runs in rounds.values()]

    results.total_layers = len(grids)
    results.finest = max(grids.values(), key=math.prod)
    results.modules_ms = median(more_than_none("none", "empty"))
    results.noise_ms = Estimate.median(more_than_none("again"))
    finest = [layer for layer, grid in grids.items() if grid == results.finest]
    first = next(iter(rounds.values()))
    for name, tool in results.tools.items():
        tool.latents_unchanged = all(r[name]["latents"] == r["none"]["latents"] for r in rounds.values())
        if name == "none":
            continue
        tool.own_ms = Estimate.median(more_than_none(name))
        believed = {layer: tuple(grid) for layer, grid in first[name]["grids"].items()}
        tool.layers = len(believed)
        tool.true_layers = sum(believed.get(layer) == grid for layer, grid in grids.items())
        tool.believed_grid = next((believed[layer] for layer in finest if layer in believed), None)


def _whole_generation(results: Results, rounds: dict[int, dict[str, Record]]) -> None:
    for name, tool in results.tools.items():
        seconds = [runs[name]["seconds"] for runs in rounds.values() if name in runs]
        if not seconds:
            continue
        tool.seconds = median(seconds)
        if name != "none":
            tool.ratios = [runs[name]["seconds"] / runs["none"]["seconds"] for runs in rounds.values()]
            tool.ratio = Estimate.median(tool.ratios)


def _memory(results: Results, records: list[Record], settings: Settings) -> None:
    runs = {(r["tool"], r["hollow"], r["steps"]): r for r in records}
    device = "device_" if settings.device == "cuda" else ""

    def more(tool: str, hollow: bool, steps: int, key: str) -> float:
        return (runs[tool, hollow, steps][key] - runs["none", hollow, steps][key]) / MIB

    for name, tool in results.tools.items():
        if name == "none":
            continue
        for _, hollow, steps in (key for key in runs if key[0] == name):
            if ("none", hollow, steps) not in runs:
                continue
            table = tool.more_memory_hollow if hollow else tool.more_memory
            table[steps] = more(name, hollow, steps, f"{device}peak_bytes_with_maps")
            if device and not hollow:
                tool.more_host_memory[steps] = more(name, hollow, steps, "peak_bytes_with_maps")
            if hollow:
                tool.held[steps] = runs[name, hollow, steps]["held_bytes"] / MIB
        hollow_runs = [runs[key] for key in runs if key[0] == name and key[1]]
        if len(hollow_runs) > 1:
            steps = [r["steps"] for r in hollow_runs]
            slope, once = np.polyfit(steps, [1e3 * r["finish_seconds"] for r in hollow_runs], 1)
            tool.maps_ms_per_step, tool.maps_ms_once = float(slope), float(once)
            tool.growth_per_step = float(np.polyfit(steps, [tool.held[s] for s in steps], 1)[0])
