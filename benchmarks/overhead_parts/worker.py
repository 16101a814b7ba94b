"""The measuring process, started by overhead.py in the environment of the tools.

Usage: ``python -m overhead_parts.worker environment SETTINGS_JSON``, or ``... JOBS FOLDER`` with the folder of a
study, where JOBS is some of ``own``, ``time`` and ``memory:TOOL``, separated by commas.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from overhead_parts.settings import Settings

Record = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Run the jobs."""
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    jobs, where = arguments
    if jobs == "environment":
        from overhead_parts.environment import describe

        settings = Settings.from_dict(json.loads(where))
        torch.set_num_threads(settings.threads or torch.get_num_threads())
        print(json.dumps(describe(settings)))
        return
    from harness import Study

    study = Study.opened(Path(where))
    settings = Settings.from_dict(study.content["settings"])
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    for job in jobs.split(","):
        part, _, tool = job.partition(":")
        if part == "memory":
            memory(settings, study, tool)
        else:
            {"own": own, "time": whole}[part](settings, study)


def alternated(tools: Iterable[str], round_: int) -> list[str]:
    """Return the order of one round: each order is followed by its reverse, then another tool is first.

    Over two rounds, every tool has the same mean position, so slow drifts cancel.
    """
    names = list(tools)
    shift = round_ // 2 % len(names)
    order = names[shift:] + names[:shift]
    return order[::-1] if round_ % 2 else order


class _Bench:
    """The measured pipeline, built and settled before the first measurement."""

    def __init__(self, settings: Settings, warmed: Iterable[str] = ()) -> None:
        self.settings, self.warmed = settings, list(warmed)

    @cached_property
    def pipe(self) -> Any:
        """The pipeline; tools have been run once on a narrow one, so that lazy imports count nowhere."""
        from overhead_parts.measure import run_once
        from overhead_parts.models import build_pipeline
        from overhead_parts.tools import TOOLS

        tiny = self.settings.as_tiny()
        small = build_pipeline(tiny)
        for name in self.warmed:
            run_once(small, TOOLS[name], tiny, 1)
        pipe = build_pipeline(self.settings)
        # The libraries have half a million objects. Without this, each garbage collection takes longer than the
        # measurements, and affects whichever tool runs at that time.
        gc.collect()
        gc.freeze()
        return pipe

    def hollow(self, *, text_attention: bool = True) -> AbstractContextManager[None]:
        """Empty the denoiser within the context."""
        from overhead_parts.hollow import hollowed
        from overhead_parts.models import denoiser_of, subject_of

        denoiser = denoiser_of(self.pipe, self.settings)
        return hollowed(denoiser, subject_of(self.settings).sites, text_attention=text_attention)


def own(settings: Settings, study: Any) -> None:
    """Measure the cost of each tool alone, round by round, on the hollow model."""
    from overhead_parts.hollow import true_grids
    from overhead_parts.measure import run_once
    from overhead_parts.models import denoiser_of, generate, subject_of
    from overhead_parts.tools import TOOLS, with_extras

    names = with_extras(settings.tools)
    bench = _Bench(settings, names)

    def grids(*_: int) -> list[Record]:
        denoiser = denoiser_of(bench.pipe, settings)
        with bench.hollow():
            found = true_grids(denoiser, subject_of(settings), lambda: generate(bench.pipe, settings, 1))
        return [{"part": "grids", "grids": found}]

    def measure(round_: int, _: int) -> list[Record]:
        if round_ == 0:
            with bench.hollow():  # first allocations
                generate(bench.pipe, settings, 1)
        records = []
        # "again" and "empty" also capture nothing: the first measures the noise, the second the harness.
        for name in alternated([*names, "again", "empty"], round_):
            with bench.hollow(text_attention=name != "empty"):
                record = run_once(bench.pipe, TOOLS.get(name, TOOLS["none"]), settings, settings.own_calls)
            records.append(record | {"part": "own", "round": round_, "tool": name})
        return records

    study.measure("grids", [0], grids)
    study.measure("own", range(settings.own_rounds), measure)


def whole(settings: Settings, study: Any) -> None:
    """Measure the time of whole generations, round by round."""
    from overhead_parts.measure import run_once
    from overhead_parts.models import generate
    from overhead_parts.tools import TOOLS

    bench = _Bench(settings, settings.tools)
    warm: list[bool] = []

    def measure(round_: int, _: int) -> list[Record]:
        if not warm:
            generate(bench.pipe, settings, 1)
            warm.append(True)
        return [
            run_once(bench.pipe, TOOLS[name], settings, settings.steps)
            | {"part": "time", "round": round_, "position": position}
            for position, name in enumerate(alternated(settings.tools, round_))
        ]

    study.measure("time", range(settings.rounds), measure)


def memory(settings: Settings, study: Any, name: str) -> None:
    """Measure the peak memory of a tool in this process, on the hollow model and in whole generations."""
    from overhead_parts.measure import run_once
    from overhead_parts.memory import PeakMemory
    from overhead_parts.tools import TOOLS

    tool = TOOLS[name]
    plan = [(True, steps) for steps in settings.hollow_memory_steps]
    plan += [] if tool.extra else [(False, steps) for steps in settings.memory_steps]
    bench = _Bench(settings, [name])
    peak: list[PeakMemory] = []

    def measure(case: tuple[bool, int], _: int) -> list[Record]:
        hollow, steps = case
        if not peak:
            with bench.hollow():
                run_once(bench.pipe, TOOLS["none"], settings, 1)
            gc.collect()
            gc.freeze()
            peak.append(PeakMemory())
        with bench.hollow() if hollow else nullcontext():
            record = run_once(bench.pipe, tool, settings, steps, memory=peak[0])
        return [record | {"part": "memory", "hollow": hollow, "method": peak[0].method}]

    study.measure(f"memory-{name}", plan, measure)


if __name__ == "__main__":
    main(sys.argv[1:])
