"""Cost of capturing cross-attention with attnviz, daam and attention-map-diffusers.

The study has the size of a published model (--model), with random weights, guidance, all layers and every step:
sd15 is Auffusion's size, audioldm2 and stable-audio are those of AudioLDM2 and Stable Audio Open. It measures,
without capture and for each tool:

own     milliseconds per denoiser call, in a denoiser in which only the modules that attend to text compute;
        number of captured layers, and their grids
memory  peak memory of a generation, for several step counts, with each tool in its own process
time    whole generations, alternating, as ratios to no capture

The other tools know sd15 alone. They are installed into a separate environment (benchmarks/.envs/peers), in which
all tools, including attnviz, are measured. An interrupted study continues where it stopped. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from harness import Study, bar_lines, parser
from harness.command import RESULTS
from overhead_parts.analysis import analyse
from overhead_parts.bars import judge
from overhead_parts.models import SUBJECTS
from overhead_parts.peers import peers_python
from overhead_parts.plot import write_plot
from overhead_parts.report import write_summary, write_tables
from overhead_parts.settings import PARTS, Settings
from overhead_parts.tools import TOOLS, with_extras

HERE = Path(__file__).resolve().parent
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
    python = _python(settings)
    if options.setup_only:
        return
    study = Study(
        options.out or _default_folder(settings),
        settings,
        {
            "all": (
                "grids",
                "own",
                "time",
                *(f"memory-{name}" for name in with_extras(tuple(TOOLS))),
                "runs",
                "tools",
            )
        },
        fresh=["all"] if options.fresh else (),
        environment=json.loads(_worker(python, "environment", json.dumps(asdict(settings)), capture=True)),
        same=("settings", "environment"),
    )
    for jobs in _processes(settings):
        _worker(python, jobs, str(study.folder.resolve()))
    results = analyse(study, settings)
    bars = judge(results, settings)
    write_tables(study, settings, results)
    write_summary(study, settings, results, bars)
    write_plot(study.folder / "overhead.png", settings, results)
    print("\n".join(bar_lines(bars)))


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    options = parser(__doc__, "overhead", PARTS, model=False)
    add = options.add_argument
    options.set_defaults(out=None)
    add("--model", choices=SUBJECTS, default=defaults.model, help="measured model (default: sd15)")
    add("--tools", help=f"some of {', '.join(_main_tools())}; none is always included (default: all that work)")
    add("--steps", type=int, help=f"number of steps of a whole generation (default: {defaults.steps})")
    add("--rounds", type=int, help=f"number of rounds of whole generations (default: {defaults.rounds})")
    add("--own-calls", type=int, help=f"number of hollow calls per run (default: {defaults.own_calls})")
    add("--own-rounds", type=int, help=f"number of rounds of hollow runs (default: {defaults.own_rounds})")
    add("--memory-steps", type=_numbers, help="step counts of the memory part (default: 1,3)")
    add("--hollow-memory-steps", type=_numbers, help="the same, hollow (default: 2,8)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if available")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="(default: float32)")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--setup-only", action="store_true", help="only install the peers")
    return options


def _main_tools() -> list[str]:
    return [name for name, tool in TOOLS.items() if not tool.extra]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _settings(options: argparse.Namespace) -> Settings:
    able = SUBJECTS[options.model].tools
    tools = tuple(dict.fromkeys(["none", *(options.tools.split(",") if options.tools else able)]))
    unknown = [name for name in tools if name not in able]
    if unknown:
        _parser().error(f"{', '.join(unknown)}: not a tool for {options.model}; choose from {', '.join(able)}")
    device = options.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(
        model=options.model,
        tools=tools,
        parts=tuple(options.parts),
        device=device,
        dtype=options.dtype,
        threads=options.threads,
    )
    settings = settings.as_tiny() if options.tiny else settings
    counts = ("steps", "rounds", "own_calls", "own_rounds", "memory_steps", "hollow_memory_steps")
    given = {name: getattr(options, name) for name in counts if getattr(options, name) is not None}
    return replace(settings, **given)


def _python(settings: Settings) -> Path:
    if any(TOOLS[name].peer for name in settings.tools):
        return peers_python()
    return Path(sys.executable)  # no other tool: the current environment is sufficient


def _default_folder(settings: Settings) -> Path:
    name = settings.device if settings.model == "sd15" else f"{settings.device}-{settings.model}"
    return HERE.parent / "runs" / f"overhead-tiny-{name}" if settings.tiny else RESULTS / "overhead" / name


def _processes(settings: Settings) -> list[str]:
    """Return the comma-separated jobs of each process."""
    memory = [f"memory:{name}" for name in with_extras(settings.tools)]
    jobs = {"own": ["own"], "memory": memory, "time": ["time"]}
    wanted = [job for part in settings.parts for job in jobs[part]]
    return [",".join(wanted)] if settings.tiny else wanted


def _worker(python: Path, jobs: str, where: str, *, capture: bool = False) -> str:
    # Import attnviz from the checkout by path.
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        [str(python), "-m", "overhead_parts.worker", jobs, where],
        env={**os.environ, "PYTHONPATH": paths, **(STEADY_MALLOC if jobs.startswith("memory") else {})},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


if __name__ == "__main__":
    raise SystemExit(main())
