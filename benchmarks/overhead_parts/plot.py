"""Draw a figure of own cost, whole generation and memory."""

from __future__ import annotations

from pathlib import Path

from harness import save_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter

from overhead_parts.analysis import Results, ToolResult
from overhead_parts.bars import OWN_PERCENT
from overhead_parts.models import SUBJECTS
from overhead_parts.settings import Settings

_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#8FD3BF", "#CC79A7")  # colour-blind safe


def write_plot(path: Path, settings: Settings, results: Results) -> None:
    """Draw the measured parts; panels of other parts remain empty."""
    tools = [tool for tool in results.tools.values() if tool.name != "none"]
    colours = {tool.name: colour for tool, colour in zip(tools, _COLOURS, strict=False)}
    figure = Figure(figsize=(16, 5), layout="constrained")
    own, whole, memory = figure.subplots(1, 3)
    _own(own, results, tools, colours)
    _whole(whole, tools, colours)
    _memory(memory, tools, colours, SUBJECTS[settings.model].more_memory)
    title = f"{SUBJECTS[settings.model].title}, guidance on, {settings.dtype}"
    figure.suptitle(title + (" (tiny mode: the numbers mean nothing)" if settings.tiny else ""))
    save_figure(figure, path)


def _own(axes: Axes, results: Results, tools: list[ToolResult], colours: dict[str, str]) -> None:
    for tool in tools:
        if tool.own_ms is None:
            continue
        layers = f"{tool.name}\n{tool.true_layers} of {results.total_layers} on the true grid"
        error = [[tool.own_ms.value - tool.own_ms.low], [tool.own_ms.high - tool.own_ms.value]]
        axes.barh(layers, tool.own_ms.value, xerr=error, color=colours[tool.name], capsize=3)
        if tool.maps_ms_per_step is not None and tool.maps_ms_per_step > 0:
            left = max(tool.own_ms.value, 0.0)
            axes.barh(layers, tool.maps_ms_per_step, left=left, color="none", edgecolor="0.4", hatch="///")
    if results.call_ms is not None:
        axes.axvline(results.call_ms * OWN_PERCENT / 100, color="0.2", linestyle="--")
        axes.set_title(f"own cost\n(dashed: {OWN_PERCENT:g} % of a full-size call)")
    axes.invert_yaxis()
    axes.set_xlabel("ms per denoiser call\n(hatched: making the maps afterwards)")


def _whole(axes: Axes, tools: list[ToolResult], colours: dict[str, str]) -> None:
    for tool in tools:
        if tool.ratio is None:
            continue
        error = [[tool.ratio.value - tool.ratio.low], [tool.ratio.high - tool.ratio.value]]
        axes.errorbar(tool.ratio.value, tool.name, xerr=error, fmt="o", color=colours[tool.name], capsize=4)
        axes.plot(tool.ratios, [tool.name] * len(tool.ratios), "|", color=colours[tool.name], alpha=0.6)
    axes.axvline(1, color="0.2", linestyle="--")
    axes.invert_yaxis()
    axes.set_title("whole generation")
    axes.set_xlabel("time, ratio to no capture\n(ticks: rounds)")


def _memory(axes: Axes, tools: list[ToolResult], colours: dict[str, str], limit: float) -> None:
    for tool in tools:
        if tool.more_memory_hollow:
            steps, mib = zip(*sorted(tool.more_memory_hollow.items()), strict=True)
            axes.plot(steps, mib, "o--", color=colours[tool.name], label=f"{tool.name} (hollow)", alpha=0.6)
        if tool.more_memory:
            steps, mib = zip(*sorted(tool.more_memory.items()), strict=True)
            axes.plot(steps, mib, "s-", color=colours[tool.name], label=tool.name)
    axes.axhline(limit, color="0.2", linestyle="--")
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_locator(FixedLocator([0, 1, 3, 10, 30, 100, 300, 1000]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    values = [mib for tool in tools for mib in (*tool.more_memory.values(), *tool.more_memory_hollow.values())]
    axes.set_ylim(bottom=min([0.0, *values]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"peak memory over no capture\n(dashed: {limit:g} MiB)")
    axes.set_xlabel("steps")
    axes.set_ylabel("MiB")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
