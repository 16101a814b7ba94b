"""Targets of the study, and whether they are reached."""

from __future__ import annotations

from dataclasses import dataclass

from overhead_parts.analysis import Results, ToolResult

PEERS = ("daam", "attention-map-diffusers")
OWN_PERCENT = 1.0
OWN_OF_PEER = 0.5
MORE_MEMORY = 32.0


@dataclass(frozen=True)
class Bar:
    """A target with its measured value and ``"reached"``, ``"missed"`` or ``"not measured"``."""

    what: str
    wanted: str
    measured: str
    state: str


def judge(results: Results) -> list[Bar]:
    """Compare the measured values of attnviz with every target."""
    tool = results.tools.get("attnviz")
    if tool is None:
        return []
    return [
        _share(results, tool),
        _peers(results, tool, with_maps=False),
        _peers(results, tool, with_maps=True),
        _ratio(tool),
        _memory(tool),
        _layers(results, tool),
    ]


def _bar(what: str, wanted: str, measured: str | None, reached: bool = False) -> Bar:
    if measured is None:
        return Bar(what, wanted, "", "not measured")
    return Bar(what, wanted, measured, "reached" if reached else "missed")


def _share(results: Results, tool: ToolResult) -> Bar:
    what, wanted = "own cost per U-Net call", f"<= {OWN_PERCENT:g} % of a full-size call"
    if tool.own_ms is None or results.call_ms is None:
        return _bar(what, wanted, None)
    percent = 100 * tool.own_ms.value / results.call_ms
    measured = (
        f"{tool.own_ms.value:.1f} ms [{tool.own_ms.low:.1f}, {tool.own_ms.high:.1f}] of "
        f"{results.call_ms:.0f} ms: {percent:.2f} %"
    )
    return _bar(what, wanted, measured, percent <= OWN_PERCENT)


def _peers(results: Results, tool: ToolResult, *, with_maps: bool) -> Bar:
    # A tool that keeps only queries and keys must still compute its maps after the generation.
    what = "the same, and making the maps afterwards" if with_maps else "own cost beside the better peer"
    wanted = f"<= {OWN_OF_PEER:g} of its"

    def cost(result: ToolResult | None) -> float | None:
        if result is None or result.own_ms is None:
            return None
        if not with_maps:
            return result.own_ms.value
        return None if result.maps_ms_per_step is None else result.own_ms.value + result.maps_ms_per_step

    costs = {peer: cost(results.tools.get(peer)) for peer in PEERS}
    known = {peer: value for peer, value in costs.items() if value is not None}
    own = cost(tool)
    if own is None or not known:
        return _bar(what, wanted, None)
    better = min(known, key=lambda peer: known[peer])
    measured = f"{own:.1f} ms a call against {known[better]:.1f} ms ({better})"
    return _bar(what, wanted, measured, own <= OWN_OF_PEER * known[better])


def _ratio(tool: ToolResult) -> Bar:
    what, wanted = "whole generation, paired ratio to none", "interval holds 1"
    if tool.ratio is None:
        return _bar(what, wanted, None)
    measured = f"{tool.ratio.value:.3f} [{tool.ratio.low:.3f}, {tool.ratio.high:.3f}]"
    if tool.ratio.high < 1:
        measured += ", below 1: not slower"
    return _bar(what, wanted, measured, tool.ratio.low <= 1)


def _memory(tool: ToolResult) -> Bar:
    what, wanted = "more peak memory than none, any number of steps", f"<= {MORE_MEMORY:g} MiB"
    if not tool.more_memory and not tool.more_memory_hollow:
        return _bar(what, wanted, None)
    whole = [f"{steps} steps {mib:+.1f}" for steps, mib in tool.more_memory.items()]
    hollow = [f"{steps} hollow steps {mib:+.1f}" for steps, mib in tool.more_memory_hollow.items()]
    most = max([*tool.more_memory.values(), *tool.more_memory_hollow.values()])
    return _bar(what, wanted, ", ".join([*whole, *hollow]) + " MiB", most <= MORE_MEMORY)


def _layers(results: Results, tool: ToolResult) -> Bar:
    what, wanted = "layers on their true grid", f"{results.total_layers or 16} of {results.total_layers or 16}"
    if tool.true_layers is None or results.total_layers is None:
        return _bar(what, wanted, None)
    measured = f"{tool.true_layers} of {results.total_layers}"
    return _bar(what, wanted, measured, tool.true_layers == results.total_layers)
