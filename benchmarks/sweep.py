"""Quality of generations and alignment of their maps by guidance scale and number of steps.

Every prompt is generated with the same noise at each guidance scale and number of steps. The study asks whether
settings whose maps align better with what is heard also sound better. Every clip is written when it is done, and
an interrupted study continues where it stopped:

    python benchmarks/sweep.py --data data/esc10 --processes 2                             # the bundled model
    python benchmarks/sweep.py --data data/esc10 --model auffusion/auffusion --out FOLDER  # a published checkpoint
    python benchmarks/sweep.py --data data/esc10 --plan                                    # how long it would take

See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from time import process_time

from harness import Model, Study, bar_lines, parser
from harness.material import clips, prompt_of, prompted_scenes
from sweep_parts.cells import Case, generated, of_reference
from sweep_parts.figures import write_figures
from sweep_parts.report import write_summary
from sweep_parts.settings import Settings
from sweep_parts.tables import cell_table, clip_table, correlations, judge

OUTPUTS = {"clips": ("clips", "cells", "correlations", "reference")}
COUNTS = {"clips": "clips (prompts) of each setting", "reference": "clips of real recordings to compare with"}


def main(arguments: list[str] | None = None) -> int:
    """Generate what is missing, and write tables, figures and report."""
    options = _parser().parse_args(arguments)
    model = Model(options.model)
    settings = _settings(options, model)
    cases = settings.cases()
    if options.plan:
        print(plan(model, settings, options))
        return 0
    study = Study(options.out, settings, OUTPUTS, fresh=OUTPUTS if options.fresh else ())
    asked = prompted_scenes(settings.esc10, settings.fold, settings.clips, settings.seed)
    others = clips(settings.esc10, settings.fold, settings.reference, settings.seed)
    scenes = [*asked, *(clip.scene for clip in others)]
    study.measure("reference", scenes, partial(of_reference, model))
    prompts = tuple(prompt_of(scene) for scene in asked)
    study.measure(
        "clips", cases, partial(generated, model, settings, prompts, options.readout), processes=options.processes
    )
    rows, reference = study.rows("clips"), study.rows("reference")
    study.write("clips", clip_table(rows), digits=6)
    cells = cell_table(rows, reference, settings)
    study.write("cells", cells, digits=6)
    found = correlations(rows, reference, settings)
    study.write("correlations", found, digits=6)
    bars = judge(found)
    write_summary(study, cells, found, bars)
    write_figures(study.folder, cells, found)
    print("\n".join(bar_lines(bars)))
    return 0


def plan(model: Model, settings: Settings, options: argparse.Namespace) -> str:
    """Return how long the study takes, from the processor time of a short and of a longer generation."""
    prompts = tuple(map(prompt_of, prompted_scenes(settings.esc10, settings.fold, 1, settings.seed)))
    scale, few, more = max(settings.scales), 5, 25
    seconds = {}
    for steps in (few, few, more):  # the first loads
        start = process_time()
        generated(model, settings, prompts, options.readout, Case(scale, steps, 0), 0)
        seconds[steps] = process_time() - start
    a_step = (seconds[more] - seconds[few]) / (more - few)
    fixed = seconds[few] - few * a_step
    cases = settings.cases()
    total = sum(max(fixed, 0) + case.steps * a_step * (0.5 if case.scale == 1 else 1) for case in cases)
    return (
        f"{len(settings.scales)} guidance scales x {len(settings.steps)} numbers of steps x {settings.clips} "
        f"clips are {len(cases)} clips, {sum(case.steps for case in cases)} denoising steps of "
        f"{1e3 * a_step:.0f} ms, and {max(fixed, 0):.1f} s for each clip: {total / 3600:.1f} h of processor time, "
        f"to be divided by the number of processes."
    )


def _settings(options: argparse.Namespace, model: Model) -> Settings:
    interval = {name: value for name, value in model.sampling.items() if name == "guidance_interval"}
    settings = Settings(options.data, model.fingerprint, fold=options.fold, **interval)
    settings = settings.as_tiny() if options.tiny else settings
    names = (*COUNTS, "scales", "steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return replace(settings, **{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, "sweep", data=True)
    add = options.add_argument
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, what in COUNTS.items():
        add(f"--{name}", type=int, help=f"number of {what} (default: {defaults[name]})")
    add("--scales", type=float, nargs="+", help=f"guidance scales (default: {_listed(defaults['scales'])})")
    add("--steps", type=int, nargs="+", help=f"numbers of steps (default: {_listed(defaults['steps'])})")
    add("--fold", type=int, default=4, help="fold of the prompts and real recordings")
    add("--readout", type=Path, help="fitted readout (default: readout.json of the model, if there is one)")
    add("--processes", type=int, default=1, help="number of processes that generate (default: 1)")
    add("--plan", action="store_true", help="time two generations and print how long the study would take")
    return options


def _listed(values: object) -> str:
    return " ".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    raise SystemExit(main())
