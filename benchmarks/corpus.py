"""Corpus runs: cost per clip, overhead, speed-up, memory, killed workers, pooling, and what 10^6 clips would take.

overhead  runs of 10^2 to 10^4 clips with a stand-in model that costs nothing: seconds and memory of the
          coordinator and of a worker, bytes per clip, and the time to collect
speedup   clips per second after start, of 1 and 2 local processes and of 2 actors of Ray, alternating, with the
          bundled model and one thread each
kills     a run whose workers are killed at random moments: clips that are lost or doubled
pooling   intervals, controls and exchanges of 10^5 phrases of 128 columns

Each case runs in a process of its own. Seconds depend on what else the machine does; ratios are of alternating
runs.
"""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from harness import Bar, Study, bar_lines, parser

from attnviz.alignment.streamed import PhraseBlock, pool_stream
from attnviz.corpus import Corpus, run_corpus
from attnviz.errors import CorpusError

OUTPUTS = {name: (name,) for name in ("overhead", "speedup", "kills", "pooling")}
CLIPS = 10**6
GPUS = 64
CAPTIONS = (
    "a dog barks, then rain falls",
    "a rooster crows while a clock ticks",
    "a baby cries, then waves crash",
)
COLUMNS, SECONDS = 128, 10.24


@dataclass(frozen=True)
class Settings:
    """Sizes of the study."""

    sizes: tuple[int, ...] = (100, 1_000, 10_000)
    clips_per_shard: int = 100
    rounds: int = 4
    clips: int = 24
    steps: int = 10
    deaths: int = 50
    phrases: int = 100_000
    resamples: int = 1_000


TINY = Settings((20, 40), 10, 1, 4, 1, 2, 400, 20)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, write tables and page, and return 0."""
    made = parser(__doc__, "corpus", tuple(OUTPUTS), model=False)
    made.add_argument("--gpu-seconds", type=float, help="seconds of a clip on one GPU, for the extrapolation")
    made.add_argument("--case", help="measure one case, given as JSON, and print it as JSON (used by the parts)")
    options = made.parse_args(arguments)
    if options.case is not None:
        print(json.dumps(CASES[(case := json.loads(options.case)).pop("part")](**case)))
        return 0
    settings = TINY if options.tiny else Settings()
    study = Study(options.out, settings, OUTPUTS, fresh=options.parts if options.fresh else ())
    for part in options.parts:
        study.cases(part, cases(part, settings), apart)
    tables = study.tables()
    targets = bars(tables) if set(tables) >= set(OUTPUTS) else []
    text = ["Measured by `benchmarks/corpus.py`; what a part does is in its help."]
    sections = [
        line for name in OUTPUTS if name in tables for line in (f"## {name}", "", *_listed(tables[name]), "")
    ]
    if "overhead" in tables and "speedup" in tables:
        sections += ["## 10^6 clips on 64 GPUs", "", *extrapolated(tables, options.gpu_seconds), ""]
    study.page("Corpus runs", text, targets, sections)
    print("\n".join(bar_lines(targets)))
    return 0


def cases(part: str, settings: Settings) -> list[dict[str, Any]]:
    """Return the cases of a part, in the order in which they alternate."""
    if part == "overhead":
        return [
            {"part": part, "clips": clips, "clips_per_shard": settings.clips_per_shard} for clips in settings.sizes
        ]
    if part == "speedup":
        ways = [("local", 1), ("local", 2), ("ray", 2)]
        # Every other round backwards: a machine that becomes slower meanwhile does not favour the first.
        return [
            {"part": part, "number": number, "executor": executor, "workers": workers, "clips": settings.clips,
             "steps": settings.steps}
            for number in range(settings.rounds)
            for executor, workers in (ways[::-1] if number % 2 else ways)
        ]  # fmt: skip
    if part == "kills":
        return [{"part": part, "deaths": settings.deaths, "clips": 40 * settings.deaths}]
    return [{"part": part, "phrases": settings.phrases, "resamples": settings.resamples}]


def apart(case: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Measure a case in a process of its own, whose memory is that of this case."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    # Pooling is one process on all cores, as after `attnviz corpus collect --align`; the others are two processes.
    threads = {} if case["part"] == "pooling" else {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **threads})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return [{name: value for name, value in case.items() if name != "part"} | found]


def overhead(clips: int, clips_per_shard: int) -> dict[str, Any]:
    """Run clips of the stand-in model, which cost nothing, with two workers, and collect them."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plan = stand_in(folder, clips, clips_per_shard)
        # The first run starts the server of workers, which imports what they need.
        run_corpus(stand_in(folder / "first", 4, 1), folder / "warm", workers=2)
        begun, cpu = time.perf_counter(), time.process_time()
        status = run_corpus(plan, folder / "out", workers=2)
        seconds, own = time.perf_counter() - begun, time.process_time() - cpu
        costs = [json.loads(path.read_text()) for path in sorted((folder / "out" / "log").glob("*.json"))]
        begun = time.perf_counter()
        rows = Corpus(folder / "out").collect(folder / "all.parquet")
        collected = time.perf_counter() - begun
        begun = time.perf_counter()
        run_corpus(plan, folder / "out", workers=2)
        rerun = time.perf_counter() - begun
    return {
        "shards": status.shards, "rows": rows, "seconds": seconds, "coordinator_cpu_seconds": own,
        "worker_seconds_per_clip": sum(cost["seconds"] + cost["write_seconds"] for cost in costs) / clips,
        "bytes_per_clip": status.bytes_per_clip, "collect_seconds": collected, "rerun_seconds": rerun,
        "coordinator_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worker_mib": max(cost["peak_mib"] for cost in costs),
    }  # fmt: skip


def speedup(number: int, executor: str, workers: int, clips: int, steps: int) -> dict[str, Any]:
    """Generate clips with the bundled model, and measure the rate from the first finished shard to the last."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_list(folder, clips)
        (folder / "plan.toml").write_text(
            f'task = "generate"\nclips_per_shard = 1\n[clips]\nlist = "list.csv"\n[generate]\n'
            f"num_inference_steps = {steps}\n"
        )
        status = run_corpus(
            folder / "plan.toml", folder / "out", executor=executor, workers=workers,  # type: ignore[arg-type]
            progress=lambda done, shards: times.append(time.perf_counter()) if done else None,
        )  # fmt: skip
    # The first shard of each worker contains loading the model.
    rate = (len(times) - workers) / (times[-1] - times[workers - 1]) if len(times) > workers else float("nan")
    return {
        "clips_per_second": rate,
        "seconds_per_clip": status.seconds_per_clip,
        "bytes_per_clip": status.bytes_per_clip,
    }


def kills(deaths: int, clips: int) -> dict[str, Any]:
    """Run clips while workers are killed at random moments, and count clips that are lost or doubled."""
    stop, killed = threading.Event(), []

    def kill() -> None:
        rng = random.Random(0)
        while not stop.is_set() and len(killed) < deaths:
            time.sleep(rng.uniform(0.05, 0.4))
            with suppress(psutil.NoSuchProcess):  # one has just ended
                servers = [one for one in psutil.Process().children() if "forkserver" in " ".join(one.cmdline())]
                if workers := [worker for server in servers for worker in server.children()]:
                    victim = rng.choice(workers)
                    victim.send_signal(signal.SIGKILL)
                    killed.append(victim.pid)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plan = stand_in(folder, clips, 4, seconds=0.02)
        thread = threading.Thread(target=kill)
        thread.start()
        runs = 0
        try:
            while True:
                runs += 1
                try:
                    run_corpus(plan, folder / "out", workers=2)
                    break
                except CorpusError as error:  # killed five times in a row: run again, as a user would
                    if "in a row" not in str(error):
                        raise
        finally:
            stop.set()
            thread.join()
        table = Corpus(folder / "out").table(["index", "phrase"])
        Corpus(folder / "out").collect(folder / "all.parquet")
    return {
        "killed": len(killed), "runs": runs, "lost": clips - table["index"].nunique(),
        "doubled": int(table.duplicated().sum()),
    }  # fmt: skip


def pooling(phrases: int, resamples: int) -> dict[str, Any]:
    """Pool phrases of two in a clip, of 2 000 source recordings, with all controls."""
    list(_blocks(10, 10))
    pool_stream(_blocks(40, 40), n_resamples=2, n_permutations=2)  # compiles
    before = _resident()
    begun, cpu = time.perf_counter(), time.process_time()
    pool_stream(_blocks(phrases, 4_000), n_resamples=resamples, n_permutations=resamples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu, "peak_mib": peak,
        "mib_before": before,
    }  # fmt: skip


CASES = {"overhead": overhead, "speedup": speedup, "kills": kills, "pooling": pooling}


def bars(tables: dict[str, pd.DataFrame]) -> list[Bar]:
    """Return the targets."""
    over, kill, pool = tables["overhead"], tables["kills"].iloc[0], tables["pooling"].iloc[0]
    rates = tables["speedup"].pivot_table("clips_per_second", "number", ["executor", "workers"])
    big, small = over.iloc[-1], over.iloc[-2]
    sizes = f"{int(small['clips'])} to {int(big['clips'])} clips"
    pooled = f"pooling {int(pool['phrases'])} phrases"

    def most(what: str, value: float, limit: float, unit: str = "") -> Bar:
        return Bar.of(what, f"<= {limit:g}{unit}", f"{value:.3g}{unit}", value <= limit)

    two = (rates[("local", 2)] / rates[("local", 1)]).median()
    return [
        Bar.of("local, 1 to 2 processes", ">= 1.8 x", f"{two:.3g} x", two >= 1.8),
        most("time of Ray beside local", (rates[("local", 2)] / rates[("ray", 2)]).median(), 1.1, " x"),
        most(f"memory of the coordinator, {sizes}", big["coordinator_mib"] / small["coordinator_mib"], 1.05, " x"),
        most(f"memory of a worker, {sizes}", big["worker_mib"] / small["worker_mib"], 1.05, " x"),
        most(f"lost or doubled clips after {int(kill['killed'])} SIGKILLs", kill["lost"] + kill["doubled"], 0),
        most(pooled, pool["seconds"], 120, " s"),
        most(f"{pooled}, memory", pool["peak_mib"] / 1024, 2, " GiB"),
        most(f"collect of {int(big['clips'])} clips", big["collect_seconds"], 10, " s"),
    ]


def extrapolated(tables: dict[str, pd.DataFrame], gpu_seconds: float | None) -> list[str]:
    """Return what 10^6 clips on 64 GPUs would take, by the measured costs, and what breaks first."""
    small, big = tables["overhead"].iloc[-2], tables["overhead"].iloc[-1]
    clips = big["clips"] - small["clips"]
    per_shard = clips / (big["shards"] - small["shards"])
    coordinator = (big["coordinator_cpu_seconds"] - small["coordinator_cpu_seconds"]) / clips
    memory = max(big["coordinator_mib"] - small["coordinator_mib"], 0.0) / clips
    scan = big["rerun_seconds"] / big["clips"]
    own = tables["speedup"].query("executor == 'local' and workers == 1")
    seconds = own["seconds_per_clip"].median() if gpu_seconds is None else gpu_seconds
    where = "one CPU core, as measured here" if gpu_seconds is None else "one GPU, as given"
    busy = CLIPS * seconds / GPUS
    limit = 1 / coordinator if coordinator > 0 else float("inf")
    wanted = GPUS / seconds
    rows = [
        ("clips", f"{CLIPS:.0e} in shards of {per_shard:.0f}: {CLIPS / per_shard:.0f} files of tables"),
        ("a clip", f"{seconds:.3g} s on {where}"),
        ("all clips", f"{busy / 3600:.3g} h on {GPUS} workers of this speed"),
        ("stored", f"{CLIPS * own['bytes_per_clip'].median() / 2**30:.3g} GiB with the bundled model's settings"),
        ("coordinator", f"{coordinator * 1e3:.3g} ms of CPU a clip: {CLIPS * coordinator / 60:.3g} min in all"),
        ("most workers", f"the coordinator serves {limit:.3g} clips a second; {GPUS} workers finish {wanted:.3g}"),
        ("its memory", f"{memory * CLIPS:.3g} MiB above its start"),
        ("start or rerun", f"{scan * CLIPS / 60:.3g} min until missing shards are known"),
        ("pooling", f"{CLIPS * 2 * 10e3 / 2**30:.3g} GiB of scratch for two phrases a clip"),
    ]
    lines = ["| what | by the measured costs |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows), ""]
    first = "the coordinator: workers wait for it" if wanted > limit else "the time of the clips, not the engine"
    lines.append(
        f"First to limit: {first}. Next is the start of a run, which reads the list and looks at every shard, and "
        "the scratch space of pooling, of which 10 KB a phrase must fit in `TMPDIR`. The plan's list of clips is "
        "read whole by the coordinator, and by shard by the workers."
    )
    return lines


def stand_in(folder: Path, clips: int, clips_per_shard: int, seconds: float = 0.0) -> Path:
    """Write a plan of the stand-in model."""
    folder.mkdir(exist_ok=True)
    _write_list(folder, clips)
    path = folder / "plan.toml"
    path.write_text(
        f'task = "attnviz.corpus.stand_in:make"\nclips_per_shard = {clips_per_shard}\n[clips]\nlist = "list.csv"\n'
        f"[settings]\nseconds = {seconds}\n"
    )
    return path


def _write_list(folder: Path, clips: int) -> None:
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["caption"])
        writer.writerows([CAPTIONS[number % len(CAPTIONS)]] for number in range(clips))


def _blocks(phrases: int, size: int) -> Iterator[PhraseBlock]:
    rng = np.random.default_rng(0)
    width = SECONDS / COLUMNS
    edges = np.arange(COLUMNS + 1) * width
    for start in range(0, phrases, size):
        numbers = np.arange(start, min(start + size, phrases))
        onsets = rng.uniform(0, 6, len(numbers))
        offsets = onsets + rng.uniform(1, 3, len(numbers))
        inside = np.minimum(edges[1:], offsets[:, None]) - np.maximum(edges[:-1], onsets[:, None])
        shares = np.clip(inside / width, 0.0, 1.0)
        noise = rng.normal(size=(len(numbers), COLUMNS + 8))
        smooth = np.mean([noise[:, place : place + COLUMNS] for place in range(9)], axis=0)
        place = numbers % 2 * 5
        yield PhraseBlock(
            clips=[f"clip {number // 2}" for number in numbers],
            sources=[f"source {number}" for number in rng.integers(2_000, size=len(numbers))],
            samples=np.zeros(len(numbers), dtype=np.int64),
            spans=np.column_stack([place, place + 3]),
            undefined=[""] * len(numbers),
            seconds=np.full(len(numbers), SECONDS),
            column_seconds=np.full(len(numbers), width),
            columns=np.full(len(numbers), COLUMNS),
            curves=(0.5 * shares + smooth).astype(np.float32),
            shares=shares,
            energy=rng.normal(size=shares.shape).astype(np.float32),
            times=list(np.stack([onsets, offsets], axis=1)[:, None]),
        )


def _resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _listed(table: pd.DataFrame) -> list[str]:
    cells = table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    raise SystemExit(main())
