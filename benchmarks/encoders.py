"""Which text encoder, and does it have to be a spectrogram? Models compared by what is heard and by their maps.

Every model generates the same prompts (also in other words, in another order of words, and as people annotate
clips) and explains the same scenes. Models with several text encoders are also compared encoder by encoder: which
one's keys hold the attention, and which one's maps align. A language model of audio codes (MusicGen) is one of the
models, scored in the same columns of 160 ms.

    python benchmarks/encoders.py --data data/esc10 --models C=runs/c/model T=runs/t/model C+T=runs/c-t/model
    python benchmarks/encoders.py --data data/esc10 --models bundled= waveform=runs/musicgen/model --base bundled
    python benchmarks/encoders.py --data data/esc10 --models C=auffusion/auffusion C+T=auffusion/auffusion-full

A model is measured once; the tables are of the models that are given. See benchmarks/README.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd
from encoders_parts.measuring import explained, generated, reference_row
from encoders_parts.report import write_report
from encoders_parts.settings import Settings
from encoders_parts.systems import System
from encoders_parts.tables import compared, encoder_table, model_row
from harness import Model, Study, parser
from harness.material import clips, prompt_of, prompted_scenes

COUNTS = {"prompts": "prompts", "restyled": "prompts in each other style", "scenes": "explained scenes"}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing of the given models, and write the tables of all that are in the folder."""
    made = parser(__doc__, "encoders", data=True, model=False)
    made.add_argument(
        "--models", nargs="+", required=True, metavar="NAME=CHECKPOINT",
        help="models by name: a folder or hub name; nothing after = is the bundled model",
    )  # fmt: skip
    made.add_argument("--base", help="model that the others are compared with (default: the first)")
    made.add_argument("--processes", type=int, default=1)
    for name, what in COUNTS.items():
        made.add_argument(f"--{name}", type=int, help=f"number of {what}")
    options = made.parse_args(arguments)
    systems = [System(*one.split("=", 1)) for one in options.models if "=" in one]
    names = [system.name for system in systems]
    if len(systems) < len(options.models) or len(set(names)) < len(names) or "" in names:
        raise SystemExit(f"--models {' '.join(options.models)}: give NAME=CHECKPOINT, each name once.")
    if options.base is not None and options.base not in names:
        raise SystemExit(f"--base {options.base} is not one of --models: {', '.join(names)}.")
    shared = Settings(options.data, "", **Model().sampling)  # the same for all denoisers
    shared = shared.as_tiny() if options.tiny else shared
    given = {name: getattr(options, name) for name in COUNTS if getattr(options, name) is not None}
    shared = replace(shared, **given)
    asked = prompted_scenes(shared.esc10, shared.fold, shared.prompts, shared.seed)
    others = [clip.scene for clip in clips(shared.esc10, shared.fold, shared.reference, shared.seed)]
    scenes = others[: shared.scenes]
    whole = Study(options.out, shared, {"reference": ("reference",)}, fresh=("reference",) * options.fresh)
    whole.measure("reference", [*asked, *others], reference_row)
    reference = whole.rows("reference")
    prompts = tuple(prompt_of(scene) for scene in asked)
    rows, models = {}, []
    for system in systems:
        settings = replace(shared, model=system.model.fingerprint)
        parts = {"generated": ("generated",), "scenes": ("scenes",)}
        study = Study(options.out / "models" / system.name, settings, parts, fresh=parts if options.fresh else ())
        study.measure(
            "generated",
            settings.cases(),
            partial(generated, system, settings, prompts),
            processes=options.processes,
        )
        study.measure("scenes", scenes, partial(explained, system, settings), processes=options.processes)
        rows[system.name] = study.rows("generated"), study.rows("scenes")
        models.append(
            {"model": system.name, "encoders": " + ".join(system.encoders), "weights": system.weights}
            | model_row(*rows[system.name], reference, shared.seed)
        )
    differences = compared(rows, options.base or names[0], shared.seed)
    encoders = encoder_table(rows, {system.name: system.encoders for system in systems}, shared.seed)
    for name, table in (("models", pd.DataFrame(models)), ("differences", differences), ("encoders", encoders)):
        whole.write(name, table, digits=6)
    write_report(whole, pd.DataFrame(models), differences, encoders)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
