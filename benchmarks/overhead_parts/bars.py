"""Targets of the study, and whether they are reached."""

from __future__ import annotations

from harness import Bar

from overhead_parts.analysis import Results, ToolResult
from overhead_parts.models import SUBJECTS
from overhead_parts.settings import Settings

PEERS = ("daam", "attention-map-diffusers")
TRUE_GRIDS = "attention-map-diffusers"  # the peer that reads every layer on its own grid
OWN_PERCENT = 1.0
OWN_OF_PEER = 0.5
PEERS_ON = "sd15"


def judge(results: Results, settings: Settings) -> list[Bar]:
    """Compare the measured values of attnviz with every target."""
    tool = results.tools.get("attnviz")
    if tool is None:
        return []
    peers = [
        _peers(results, tool, PEERS, "own cost beside the better peer", with_maps=False),
        _peers(results, tool, PEERS, "the same, and making the maps afterwards", with_maps=True),
        _peers(results, tool, (TRUE_GRIDS,), f"the same beside {TRUE_GRIDS}", with_maps=True),
    ]
    return [
        _share(results, tool),
        *(peers if settings.model == PEERS_ON else []),
        _ratio(tool),
        _memory(tool, SUBJECTS[settings.model].more_memory),
        _layers(results, tool),
        _unchanged(tool),
    ]


def _share(results: Results, tool: ToolResult) -> Bar:
    what, wanted = "own cost per denoiser call", f"<= {OWN_PERCENT:g} % of a full-size call"
    if tool.own_ms is None or results.call_ms is None:
        return Bar.of(what, wanted)
    percent = 100 * tool.own_ms.value / results.call_ms
    measured = (
        f"{tool.own_ms.value:.1f} ms [{tool.own_ms.low:.1f}, {tool.own_ms.high:.1f}] of "
        f"{results.call_ms:.0f} ms: {percent:.2f} %"
    )
    return Bar.of(what, wanted, measured, percent <= OWN_PERCENT)


def _peers(results: Results, tool: ToolResult, names: tuple[str, ...], what: str, *, with_maps: bool) -> Bar:
    # A tool that keeps only queries and keys must still compute its maps after the generation.
    wanted = f"<= {OWN_OF_PEER:g} of its"

    def cost(result: ToolResult | None) -> float | None:
        if result is None or result.own_ms is None:
            return None
        if not with_maps:
            return result.own_ms.value
        return None if result.maps_ms_per_step is None else result.own_ms.value + result.maps_ms_per_step

    costs = {peer: cost(results.tools.get(peer)) for peer in names}
    known = {peer: value for peer, value in costs.items() if value is not None}
    own = cost(tool)
    if own is None or not known:
        return Bar.of(what, wanted)
    better = min(known, key=lambda peer: known[peer])
    measured = f"{own:.1f} ms a call against {known[better]:.1f} ms ({better})"
    return Bar.of(what, wanted, measured, own <= OWN_OF_PEER * known[better])


def _ratio(tool: ToolResult) -> Bar:
    what, wanted = "whole generation, paired ratio to none", "interval holds 1"
    if tool.ratio is None:
        return Bar.of(what, wanted)
    measured = f"{tool.ratio.value:.3f} [{tool.ratio.low:.3f}, {tool.ratio.high:.3f}]"
    if tool.ratio.high < 1:
        measured += ", below 1: not slower"
    return Bar.of(what, wanted, measured, tool.ratio.low <= 1)


def _memory(tool: ToolResult, limit: float) -> Bar:
    what, wanted = "more peak memory than none, any number of steps", f"<= {limit:g} MiB"
    if not tool.more_memory and not tool.more_memory_hollow:
        return Bar.of(what, wanted)
    whole = [f"{steps} steps {mib:+.1f}" for steps, mib in tool.more_memory.items()]
    hollow = [f"{steps} hollow steps {mib:+.1f}" for steps, mib in tool.more_memory_hollow.items()]
    most = max([*tool.more_memory.values(), *tool.more_memory_hollow.values()])
    return Bar.of(what, wanted, ", ".join([*whole, *hollow]) + " MiB", most <= limit)


def _layers(results: Results, tool: ToolResult) -> Bar:
    what, wanted = "layers on their true grid", f"{results.total_layers or 16} of {results.total_layers or 16}"
    if tool.true_layers is None or results.total_layers is None:
        return Bar.of(what, wanted)
    measured = f"{tool.true_layers} of {results.total_layers}"
    return Bar.of(what, wanted, measured, tool.true_layers == results.total_layers)


def _unchanged(tool: ToolResult) -> Bar:
    unchanged = tool.latents_unchanged
    return Bar.of(
        "latents", "bit-identical", None if unchanged is None else "yes" if unchanged else "no", unchanged
    )
