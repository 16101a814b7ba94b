"""The measuring process, started by overhead.py in the environment of the tools.

Usage: ``python -m overhead_parts.worker JOBS SETTINGS_JSON [STORE]``, where JOBS is ``environment``, or some of
``own``, ``time`` and ``memory:TOOL``, separated by commas.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

from overhead_parts.settings import Settings
from overhead_parts.store import Record, RunStore


def main(arguments: list[str]) -> None:
    """Run the jobs."""
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    jobs, settings = arguments[0], Settings.from_dict(json.loads(arguments[1]))
    import torch

    if settings.threads:
        torch.set_num_threads(settings.threads)
    if jobs == "environment":
        from overhead_parts.environment import describe

        print(json.dumps(describe(settings)))
        return
    store = RunStore(Path(arguments[2]))
    for job in jobs.split(","):
        if job == "own":
            _own(settings, store)
        elif job == "time":
            _time(settings, store)
        else:
            _memory(settings, store, job.removeprefix("memory:"))


def alternated(tools: Iterable[str], round_: int) -> list[str]:
    """Return the order of one round: each order is followed by its reverse, then another tool is first.

    Over two rounds, every tool has the same mean position, so slow drifts cancel.
    """
    names = list(tools)
    shift = round_ // 2 % len(names)
    order = names[shift:] + names[:shift]
    return order[::-1] if round_ % 2 else order


def _own(settings: Settings, store: RunStore) -> None:
    from overhead_parts.hollow import hollowed, true_grids
    from overhead_parts.measure import generate, run_once
    from overhead_parts.model import build_pipeline
    from overhead_parts.tools import TOOLS, with_extras

    done = {record["round"] for record in store.records("own")}
    missing = [round_ for round_ in range(settings.own_rounds) if round_ not in done]
    if not missing:
        return
    pipe = build_pipeline(settings)
    names = with_extras(settings.tools)
    with hollowed(pipe.unet):
        grids = true_grids(pipe.unet, lambda: generate(pipe, settings, 1))
        if not store.records("grids"):
            store.append([{"part": "grids", "grids": grids}])
        for name in names:  # exclude lazy imports and first allocations from the cost per call
            run_once(pipe, TOOLS[name], settings, 1)
    _settle()
    # "again" and "empty" also capture nothing: the first measures the noise, the second the harness.
    for round_ in missing:
        records: list[Record] = []
        for name in alternated([*names, "again", "empty"], round_):
            tool = TOOLS.get(name, TOOLS["none"])
            with hollowed(pipe.unet, cross_attention=name != "empty"):
                record = run_once(pipe, tool, settings, settings.own_calls)
            records.append(record | {"part": "own", "round": round_, "tool": name})
            _say(f"own    round {round_ + 1}/{settings.own_rounds}  {name}", record["seconds"])
        store.append(records)


def _time(settings: Settings, store: RunStore) -> None:
    from overhead_parts.measure import generate, run_once
    from overhead_parts.model import build_pipeline
    from overhead_parts.tools import TOOLS

    done = {record["round"] for record in store.records("time")}
    missing = [round_ for round_ in range(settings.rounds) if round_ not in done]
    if not missing:
        return
    pipe = build_pipeline(settings)
    _warm_up(settings, list(settings.tools))
    start = perf_counter()
    generate(pipe, settings, 1)
    _settle()
    _say("time   warm-up", perf_counter() - start)
    for round_ in missing:
        records: list[Record] = []
        for position, name in enumerate(alternated(settings.tools, round_)):
            record = run_once(pipe, TOOLS[name], settings, settings.steps)
            records.append(record | {"part": "time", "round": round_, "position": position})
            _say(f"time   round {round_ + 1}/{settings.rounds}  {name}", record["seconds"])
        store.append(records)


def _memory(settings: Settings, store: RunStore, name: str) -> None:
    from contextlib import nullcontext

    from overhead_parts.hollow import hollowed
    from overhead_parts.measure import run_once
    from overhead_parts.memory import PeakMemory
    from overhead_parts.model import build_pipeline
    from overhead_parts.tools import TOOLS

    tool = TOOLS[name]
    whole = () if tool.extra else settings.memory_steps
    plan = [(True, steps) for steps in settings.hollow_memory_steps] + [(False, steps) for steps in whole]
    done = {(r["hollow"], r["steps"]) for r in store.records("memory") if r["tool"] == name}
    if all(item in done for item in plan):
        return
    _warm_up(settings, [name])
    pipe = build_pipeline(settings)
    memory = PeakMemory()
    with hollowed(pipe.unet):
        run_once(pipe, TOOLS["none"], settings, 1)
    _settle()
    for hollow, steps in plan:
        if (hollow, steps) in done:
            continue
        with hollowed(pipe.unet) if hollow else nullcontext():
            record = run_once(pipe, tool, settings, steps, memory=memory)
        store.append([record | {"part": "memory", "hollow": hollow, "method": memory.method}])
        _say(f"memory {name}, {steps} {'hollow ' if hollow else ''}steps", record["seconds"])


def _settle() -> None:
    # The libraries have half a million objects. Without this, each garbage collection takes longer than the
    # measurements, and affects whichever tool runs at that time.
    gc.collect()
    gc.freeze()


def _warm_up(settings: Settings, names: list[str]) -> None:
    # Use a narrow U-Net first, so that one-time imports and setup do not count as memory or time.
    from overhead_parts.measure import run_once
    from overhead_parts.model import build_pipeline
    from overhead_parts.tools import TOOLS

    tiny = settings.as_tiny()
    pipe: Any = build_pipeline(tiny)
    _settle()
    for name in names:
        run_once(pipe, TOOLS[name], tiny, 1)


def _say(what: str, seconds: float) -> None:
    print(f"  {what:<52} {seconds:8.2f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
