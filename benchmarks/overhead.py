"""Cost of capturing cross-attention with attnviz, daam and attention-map-diffusers.

The study has the size of Auffusion (the 860 million weights of Stable Diffusion 1.5's U-Net, random here; latents
32 x 128; guidance; all 16 layers; every step). It measures, without capture and for each tool:

own     milliseconds per U-Net call, in a U-Net in which only the 16 cross-attention modules compute;
        number of captured layers, and their grids
memory  peak memory of a generation, for several step counts, with each tool in its own process
time    whole generations, alternating, as ratios to no capture

The other tools are installed into a separate environment (benchmarks/.envs/peers), in which all tools, including
attnviz, are measured. An interrupted study continues where it stopped. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from overhead_parts.analysis import analyse  # noqa: E402
from overhead_parts.bars import judge  # noqa: E402
from overhead_parts.peers import peers_python  # noqa: E402
from overhead_parts.plot import write_plot  # noqa: E402
from overhead_parts.report import write_summary, write_tables  # noqa: E402
from overhead_parts.settings import PARTS, Settings  # noqa: E402
from overhead_parts.store import RunStore  # noqa: E402
from overhead_parts.tools import TOOLS, with_extras  # noqa: E402

# By default, glibc keeps freed blocks by adaptive rules, which adds 40 MiB of noise. If it returns every larger
# block immediately, resident memory equals the memory in use, to a fraction of a MiB.
STEADY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def main(arguments: list[str] | None = None) -> int:
    """Run the study and print the targets; return 0 unless something could not be run."""
    options = _parser().parse_args(arguments)
    try:
        _study(options, _settings(options))
    except subprocess.CalledProcessError as error:
        print(f"Stopped: {Path(error.cmd[0]).name} ended with {error.returncode}; see above.", file=sys.stderr)
        return 1
    return 0


def _study(options: argparse.Namespace, settings: Settings) -> None:
    started = perf_counter()
    python = _python(settings)
    if options.setup_only:
        return
    folder = options.out or _default_folder(settings)
    environment = json.loads(_worker(python, "environment", settings, capture=True))
    store = RunStore(folder / "runs.jsonl")
    study = {"settings": settings.to_dict(), "environment": environment}
    kept = store.start(json.loads(json.dumps(study)), fresh=options.fresh)
    print(f"{kept} runs exist already" if kept else "Measuring", flush=True)
    for jobs in _processes(settings):
        _worker(python, jobs, settings, store.path)
    results = analyse(store, settings)
    bars = judge(results)
    write_tables(folder, store, results, bars)
    write_summary(folder / "README.md", settings, environment, results, bars)
    write_plot(folder / "overhead.png", settings, results)
    (folder / "environment.json").write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")
    for bar in bars:
        print(f"{bar.state.upper():<13} {bar.what}: {bar.measured} (wanted: {bar.wanted})")
    print(f"{perf_counter() - started:.0f} s. Results: {folder}")


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    main_tools = [name for name, tool in TOOLS.items() if not tool.extra]
    add("--tiny", action="store_true", help="smoke test with a narrow U-Net, in seconds")
    add(
        "--tools",
        default=",".join(defaults.tools),
        help=f"some of {', '.join(main_tools)}; none is always included",
    )
    add("--parts", default=",".join(PARTS), help="some of own, memory, time (default: all)")
    add("--steps", type=int, help=f"number of steps of a whole generation (default: {defaults.steps})")
    add("--rounds", type=int, help=f"number of rounds of whole generations (default: {defaults.rounds})")
    add("--own-calls", type=int, help=f"number of hollow calls per run (default: {defaults.own_calls})")
    add("--own-rounds", type=int, help=f"number of rounds of hollow runs (default: {defaults.own_rounds})")
    add("--memory-steps", type=_numbers, help="step counts of the memory part (default: 1,3)")
    add("--hollow-memory-steps", type=_numbers, help="the same, hollow (default: 2,8)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if available")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="(default: float32)")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--out", type=Path, help="results folder (default: results/overhead/cpu or cuda; runs/overhead-tiny)")
    add("--fresh", action="store_true", help="repeat all measurements")
    add("--setup-only", action="store_true", help="only install the peers")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _settings(options: argparse.Namespace) -> Settings:
    tools = tuple(dict.fromkeys(["none", *options.tools.split(",")]))
    parts = tuple(options.parts.split(","))
    unknown = [t for t in tools if t not in TOOLS or TOOLS[t].extra] + [p for p in parts if p not in PARTS]
    if unknown:
        _parser().error(f"unknown: {', '.join(unknown)}")
    device = options.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(tools=tools, parts=parts, device=device, dtype=options.dtype, threads=options.threads)
    settings = settings.as_tiny() if options.tiny else settings
    counts = ("steps", "rounds", "own_calls", "own_rounds", "memory_steps", "hollow_memory_steps")
    given = {name: getattr(options, name) for name in counts if getattr(options, name) is not None}
    return replace(settings, **given)


def _python(settings: Settings) -> Path:
    if any(TOOLS[name].peer for name in settings.tools):
        return peers_python()
    return Path(sys.executable)  # no other tool: the current environment is sufficient


def _default_folder(settings: Settings) -> Path:
    if settings.tiny:
        return HERE.parent / "runs" / "overhead-tiny"
    return HERE.parent / "results" / "overhead" / settings.device


def _processes(settings: Settings) -> list[str]:
    """Return the comma-separated jobs of each process."""
    memory = [f"memory:{name}" for name in with_extras(settings.tools)]
    jobs = {"own": ["own"], "memory": memory, "time": ["time"]}
    wanted = [job for part in settings.parts for job in jobs[part]]
    return [",".join(wanted)] if settings.tiny else wanted


def _worker(
    python: Path, jobs: str, settings: Settings, store: Path | None = None, *, capture: bool = False
) -> str:
    # Import attnviz from the checkout by path.
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    command = [str(python), "-m", "overhead_parts.worker", jobs, json.dumps(settings.to_dict())]
    done = subprocess.run(
        [*command, *([str(store.resolve())] if store else [])],
        env={**os.environ, "PYTHONPATH": paths, **(STEADY_MALLOC if jobs.startswith("memory") else {})},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
