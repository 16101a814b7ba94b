"""Study of the alignment of attention with sounds. An interrupted study continues where it stopped.

readouts    readouts fitted and layers chosen on scenes of another fold, for each method of `attnviz.explain`
explain     scenes with exact ground truth, explained by three methods: noised, inverted with DDIM, predicted clean
weights     the first method again, compared with the same model with shuffled weights, seed by seed
generation  prompts generated with several seeds; ground truth from the listener; every step, layer and head

With --events and --audio, real annotated clips replace the scenes. Then no readout is fitted (use --readout), and
nothing is generated. Every clip is written when it is done. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

from alignment_parts.bars import judge
from alignment_parts.figures import write_figures
from alignment_parts.report import write_summary
from alignment_parts.settings import WAYS, Settings
from alignment_parts.study import OUTPUTS, PARTS, AlignmentStudy, Source, by_part
from harness import Model, Study, bar_lines, parser

from attnviz.maps import FittedReadout

COUNTS = {
    "scenes": "number of scenes, or of captions of real clips",
    "choosing_scenes": "number of scenes for fitting readouts",
    "prompts": "number of prompts to generate",
    "seeds": "number of seeds per prompt",
    "steps": "number of denoising steps of a generation",
    "weight_scenes": "number of scenes, or captions, for shuffled weights",
    "weight_seeds": "number of seeds of shuffled weights",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the study and print the bars."""
    options = _parser().parse_args(arguments)
    readout = None if options.readout is None else FittedReadout.load(options.readout)
    model = Model(options.model, device=options.device)
    settings = _settings(options, model, readout)
    study = Study(
        options.out, settings, OUTPUTS, fresh=options.parts if options.fresh else (), device=options.device
    )
    source = Source(options.data, options.events, options.audio)
    AlignmentStudy(study, settings, source, model, readout).run(options.parts, options.ways)
    tables = by_part(study.tables())
    bars = judge(tables)
    write_summary(study, bars, tables, model.listener.quality)
    write_figures(study.folder, tables)
    print("\n".join(bar_lines(bars)))
    return 0


def _settings(options: argparse.Namespace, model: Model, readout: FittedReadout | None) -> Settings:
    if (options.events is None) != (options.audio is None):
        raise SystemExit("--events (annotations) and --audio (folder of the audio) must be given together.")
    if (options.events is None) == (options.data is None):
        raise SystemExit("Give --data (ESC-10 from `attnviz data esc10`), or --events and --audio.")
    if options.fold == options.choosing_fold:
        raise SystemExit(
            f"--fold and --choosing-fold are both {options.fold}; choose and report on different folds."
        )
    settings = Settings(
        **model.sampling,
        audio=(options.data or options.events).name,
        model=model.fingerprint,
        readout=None if readout is None else readout.name,
        fold=options.fold,
        choosing_fold=options.choosing_fold,
    )
    settings = settings.as_tiny() if options.tiny else settings
    return replace(
        settings, **{name: getattr(options, name) for name in COUNTS if getattr(options, name) is not None}
    )


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, "alignment", PARTS, data=False)
    add = options.add_argument
    add("--events", type=Path, help="annotations of real clips with captions, such as audiogrounding.json")
    add("--audio", type=Path, help="folder with the audio of those clips")
    add("--readout", type=Path, help="fitted readout to score instead of fitting one")
    add("--fold", type=int, default=4, help="fold for reporting; tune on another one")
    add("--choosing-fold", type=int, default=3, help="fold for fitting readouts and choosing layers")
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="methods of `attnviz.explain`")
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, what in COUNTS.items():
        add(f"--{name.replace('_', '-')}", type=int, help=f"{what} (default: {defaults[name]})")
    add("--device", default="cpu")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
