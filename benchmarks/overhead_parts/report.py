"""Write the results as tables and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from overhead_parts.analysis import Estimate, Results
from overhead_parts.bars import Bar
from overhead_parts.settings import Settings
from overhead_parts.store import RunStore


def write_tables(folder: Path, store: RunStore, results: Results, bars: Sequence[Bar]) -> None:
    """Write ``runs.csv`` (every run), ``tools.csv`` (one row per tool) and ``bars.csv``."""
    runs = [_run_row(record) for part in ("own", "memory", "time") for record in store.records(part)]
    _write_csv(folder / "runs.csv", runs)
    _write_csv(folder / "tools.csv", [tool.flat() for tool in results.tools.values()])
    _write_csv(folder / "bars.csv", [vars(bar) for bar in bars])


def write_summary(
    path: Path, settings: Settings, environment: dict[str, Any], results: Results, bars: Sequence[Bar]
) -> None:
    """Write the summary of the study as Markdown."""
    lines = ["# What capturing cross-attention costs", ""]
    if settings.tiny:
        lines += ["**Tiny mode: this shows that the benchmark runs. The numbers mean nothing.**", ""]
    lines += [_setting(settings, environment), ""]
    lines += ["| bar | wanted | measured | |", "|---|---|---|---|"]
    lines += [f"| {bar.what} | {bar.wanted} | {bar.measured} | **{bar.state}** |" for bar in bars]
    lines += ["", *_cost_table(results), "", *_memory_table(results), "", *_notes(settings, results), ""]
    shims = [f"- {tool}: {shim}" for tool, names in environment["shims"].items() for shim in names]
    lines += ["Shims:", "", *shims, ""] if shims else []
    lines += ["![plot](overhead.png)", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _setting(settings: Settings, environment: dict[str, Any]) -> str:
    machine = environment["accelerator"] or f"{environment['processor']}, {environment['cores']} threads"
    versions = ", ".join(f"{tool} {version}" for tool, version in environment["tools"].items() if version)
    return (
        f"{'A narrow' if settings.tiny else 'The Stable Diffusion 1.5'} U-Net with random weights, latents "
        f"{settings.height // 8} x {settings.width // 8}, guidance on, {settings.dtype}. {machine}; "
        f"Python {environment['python']}, torch {environment['torch']}, diffusers "
        f"{environment['diffusers']}, transformers {environment['transformers']}; {versions}."
    )


def _cost_table(results: Results) -> list[str]:
    lines = [
        "| tool | layers | on true grid | finest grid, as believed | latents unchanged | own cost, ms a call "
        "| making the maps afterwards, ms a step + once | generation, s | ratio to none |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for tool in results.tools.values():
        grid = " x ".join(map(str, tool.believed_grid)) if tool.believed_grid else ""
        unchanged = {True: "yes", False: "no", None: ""}[tool.latents_unchanged]
        afterwards = (
            f"{tool.maps_ms_per_step:.1f} + {tool.maps_ms_once:.0f}"
            if tool.maps_ms_per_step is not None and tool.maps_ms_once is not None
            else ""
        )
        cells = [
            tool.name,
            _of(tool.layers, results.total_layers),
            _of(tool.true_layers, results.total_layers),
            grid,
            unchanged,
            _estimate(tool.own_ms, 1),
            afterwards,
            f"{tool.seconds:.2f}" if tool.seconds is not None else "",
            _estimate(tool.ratio, 3),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _memory_table(results: Results) -> list[str]:
    measured = [tool for tool in results.tools.values() if tool.more_memory or tool.more_memory_hollow]
    if not measured:
        return []
    whole = sorted({steps for tool in measured for steps in tool.more_memory})
    hollow = sorted({steps for tool in measured for steps in tool.more_memory_hollow})
    heads = [f"{n} steps" for n in whole] + [f"{n} hollow steps" for n in hollow]
    lines = [
        "Peak memory over no capture, MiB, until the maps exist:",
        "",
        "| tool | " + " | ".join(heads) + " | kept a step |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for tool in measured:
        cells = [_mib(tool.more_memory.get(n)) for n in whole]
        cells += [_mib(tool.more_memory_hollow.get(n)) for n in hollow]
        lines.append(f"| {tool.name} | " + " | ".join(cells) + f" | {_mib(tool.growth_per_step)} |")
    return lines


def _notes(settings: Settings, results: Results) -> list[str]:
    notes = []
    if results.call_ms is not None:
        notes.append(f"A full-size U-Net call without capture takes {results.call_ms:.0f} ms (median).")
    if results.modules_ms is not None and results.noise_ms is not None:
        notes.append(
            f"Its {results.total_layers} cross-attention modules take {results.modules_ms:.1f} ms of it. No "
            f"capture measured against itself differs by {_estimate(results.noise_ms, 1)} ms: the noise of the "
            "own cost."
        )
    notes.append(
        f"Medians over {settings.own_rounds} rounds of {settings.own_calls} hollow calls and {settings.rounds} "
        f"rounds of {settings.steps} whole steps, alternated; brackets are 95 % bootstrap intervals of the "
        "paired differences or ratios. A hollow step runs the U-Net with everything but cross-attention emptied."
    )
    return notes


def _of(count: int | None, total: int | None) -> str:
    return "" if count is None else f"{count} of {total}"


def _estimate(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _run_row(record: dict[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in record.items() if key not in {"grids", "call_seconds"}}
    return row | {"call_milliseconds": " ".join(f"{1e3 * s:.2f}" for s in record["call_seconds"])}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
