"""Write the results as tables and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import Bar, Estimate, Study

from overhead_parts.analysis import Results, memory_rows
from overhead_parts.models import SUBJECTS
from overhead_parts.settings import Settings


def write_tables(study: Study, settings: Settings, results: Results) -> None:
    """Write ``runs.csv`` (every run) and ``tools.csv`` (one row per tool)."""
    runs = [*study.rows("own"), *memory_rows(study, settings), *study.rows("time")]
    study.write("runs", map(_run_row, runs), digits=6)
    study.write("tools", (tool.flat() for tool in results.tools.values()), digits=6)


def write_summary(study: Study, settings: Settings, results: Results, bars: Sequence[Bar]) -> None:
    """Write the summary of the study as Markdown, and ``bars.csv``."""
    environment = study.content["environment"]
    tiny = (
        ["**Tiny mode: this shows that the benchmark runs. The numbers mean nothing.**"] if settings.tiny else []
    )
    lines = [*_cost_table(results), "", *_memory_table(results), "", *_notes(settings, results), ""]
    shims = [f"- {tool}: {shim}" for tool, names in environment["shims"].items() for shim in names]
    lines += ["Shims:", "", *shims, ""] if shims else []
    lines += ["![plot](overhead.png)", ""]
    study.page("What capturing cross-attention costs", [*tiny, _setting(settings, environment)], bars, lines)


def _setting(settings: Settings, environment: dict[str, Any]) -> str:
    machine = environment["accelerator"] or f"{environment['processor']}, {environment['cores']} threads"
    versions = ", ".join(f"{tool} {version}" for tool, version in environment["tools"].items() if version)
    return (
        f"{SUBJECTS[settings.model].title}{', narrowed' if settings.tiny else ''}, with random weights, guidance "
        f"on, {settings.dtype}. {machine}; "
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
            _estimate(tool.own_ms, ".1f"),
            afterwards,
            f"{tool.seconds:.2f}" if tool.seconds is not None else "",
            _estimate(tool.ratio, ".3f"),
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
        notes.append(f"A full-size denoiser call without capture takes {results.call_ms:.0f} ms (median).")
    if results.modules_ms is not None and results.noise_ms is not None:
        notes.append(
            f"Its {results.total_layers} modules that attend to text take {results.modules_ms:.1f} ms of it. No "
            f"capture measured against itself differs by {results.noise_ms.text('.1f')} ms: the noise of the "
            "own cost."
        )
    notes.append(
        f"Medians over {settings.own_rounds} rounds of {settings.own_calls} hollow calls and {settings.rounds} "
        f"rounds of {settings.steps} whole steps, alternated; brackets are 95 % bootstrap intervals of the "
        "paired differences or ratios. A hollow step runs the denoiser with everything but these modules emptied."
    )
    return notes


def _of(count: int | None, total: int | None) -> str:
    return "" if count is None else f"{count} of {total}"


def _estimate(estimate: Estimate | None, form: str) -> str:
    return "" if estimate is None else estimate.text(form)


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _run_row(record: dict[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in record.items() if key not in {"grids", "call_seconds"}}
    return row | {"call_milliseconds": " ".join(f"{1e3 * s:.2f}" for s in record["call_seconds"])}
