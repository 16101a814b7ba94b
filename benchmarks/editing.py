"""Quality of edits with the bundled model and its listener, compared with regeneration and SDEdit.

swap      replace the phrase of a sound: is the new sound heard, is the old one gone, is the rest unchanged
refine    add the phrase of a sound
reweight  loudness and listener probability of a phrase by its weight
inpaint   regenerate a span of a real scene: seams, and sounds heard in the span
style     edit a real scene towards another sound, by strength
command   swaps with the command `attnviz edit swap` without other settings than the seed

Completed cases are kept, and not measured again unless --fresh is given. See benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from editing_parts.clips import inpaint_rows, scenes_of, style_rows
from editing_parts.command import command_rows
from editing_parts.prompting import edit_rows, weight_rows
from editing_parts.report import judge, write_figures, write_summary
from editing_parts.settings import PARTS, Settings
from editing_parts.tasks import refinements, swaps, weighings
from harness import Model, Study, bar_lines, parser

from attnviz.models.pipelines.recommended import read_recommended


def main(arguments: list[str] | None = None) -> int:
    """Run the study and print the bars."""
    options = _parser().parse_args(arguments)
    model = Model(options.model, options.listener)
    settings = Settings(esc10=options.data, model=model.fingerprint, fold=options.fold)
    settings = settings.as_tiny() if options.tiny else settings
    given = {"prompts": options.prompts, "steps": options.steps}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    study = Study(
        options.out,
        settings,
        {part: (part,) for part in PARTS},
        fresh=options.parts if options.fresh else (),
        recommended=read_recommended(model.folder).of,
    )
    for part in PARTS:
        if part in options.parts:
            study.cases(part, _tasks(part, settings), _measure(part, model, settings))
    tables = study.tables()
    bars = judge(tables, settings.resamples, settings.seed)
    write_summary(study, bars, tables)
    write_figures(study.folder, tables, settings.resamples, settings.seed)
    print("\n".join(bar_lines(bars)))
    return 0


def _tasks(part: str, settings: Settings) -> Iterator[Any]:
    """Return the cases of a part."""
    if part in ("inpaint", "style"):
        return scenes_of(part, settings)
    return {"refine": refinements, "reweight": weighings}.get(part, swaps)(settings)


def _measure(part: str, model: Model, settings: Settings) -> Any:
    """Return the function that measures a case, given its number."""
    rows = {
        "swap": partial(edit_rows, part="swap"),
        "refine": partial(edit_rows, part="refine"),
        "reweight": weight_rows,
        "inpaint": inpaint_rows,
        "style": style_rows,
        "command": command_rows,
    }[part]
    return lambda task, number: rows(model, task, settings, number=number)


def _parser() -> Any:
    options = parser(__doc__, "editing", PARTS, data=True)
    options.add_argument("--listener", type=Path, help="folder of a listener (default: that of the model)")
    options.add_argument("--fold", type=int, default=4, help="fold for reporting; tune on another one")
    options.add_argument("--prompts", type=int, help="number of cases per kind")
    options.add_argument("--steps", type=int, help="number of denoising steps (default: that of the model)")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
