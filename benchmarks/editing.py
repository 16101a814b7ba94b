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

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from bundled import fingerprint  # noqa: E402
from editing_parts.clips import inpaint_rows, scenes_of, style_rows  # noqa: E402
from editing_parts.command import command_rows  # noqa: E402
from editing_parts.prompting import edit_rows, weight_rows  # noqa: E402
from editing_parts.report import judge, table_lines, write_figures, write_summary  # noqa: E402
from editing_parts.settings import PARTS, Settings  # noqa: E402
from editing_parts.tasks import refinements, swaps, weighings  # noqa: E402

import attnviz  # noqa: E402
from attnviz import bundled  # noqa: E402
from attnviz.io.storage import write_whole  # noqa: E402
from attnviz.pipelines.recommended import read_recommended  # noqa: E402
from attnviz.sounds.listener_folder import trained_listener  # noqa: E402

PIECES = "pieces"

Measure = Callable[[Any, int], list[dict[str, Any]]]
"""Function that measures a case, given its number."""


def main(arguments: list[str] | None = None) -> int:
    """Run the study and print the bars."""
    options = _parser().parse_args(arguments)
    settings = Settings(
        esc10=options.data,
        model=fingerprint(Path(options.model) if options.model else bundled.FOLDER),
        fold=options.fold,
    )
    settings = settings.as_tiny() if options.tiny else settings
    given = {"prompts": options.prompts, "steps": options.steps}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = Path(options.model) if options.model else bundled.FOLDER
    study = json.loads(
        json.dumps(
            {
                "settings": settings.to_dict(),
                "recommended": read_recommended(checkpoint).of,
                "environment": _environment(),
            }
        )
    )
    _check_same(folder, study, options.parts if options.fresh else [])
    (folder / "study.json").write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")
    _measure(settings, options.model, options.listener, folder, options.parts)
    tables = {part: pd.read_csv(path) for part in PARTS if (path := folder / f"{part}.csv").exists()}
    bars = judge(tables, settings.resamples, settings.seed)
    write_summary(folder, study, bars, tables)
    write_figures(folder, tables, settings.resamples, settings.seed)
    print("\n".join(table_lines(bars)))
    return 0


def _measure(settings: Settings, model: str | None, listener: str | None, folder: Path, parts: list[str]) -> None:
    """Measure the requested cases that are missing, and combine the cases of each part."""
    wanted = [part for part in PARTS if part in parts and not (folder / f"{part}.csv").exists()]
    if not wanted:
        return
    (folder / PIECES).mkdir(exist_ok=True)
    (folder / PIECES / ".gitignore").write_text("*\n", encoding="utf-8")  # their content is in the tables
    pipe = attnviz.load(model) if model else attnviz.load()
    pipe.set_progress_bar_config(disable=True)
    trained = trained_listener(listener or (Path(model) / "listener" if model else None))
    work: dict[str, tuple[Iterator[Any], Measure]] = {
        "swap": (swaps(settings), lambda task, n: edit_rows(pipe, trained, task, settings, "swap", n)),
        "refine": (refinements(settings), lambda task, n: edit_rows(pipe, trained, task, settings, "refine", n)),
        "reweight": (weighings(settings), lambda task, n: weight_rows(pipe, trained, task, settings, n)),
        "inpaint": (
            scenes_of("inpaint", settings),
            lambda task, n: inpaint_rows(pipe, trained, task, settings, n),
        ),
        "style": (scenes_of("style", settings), lambda task, n: style_rows(pipe, trained, task, settings, n)),
        "command": (swaps(settings), lambda task, n: command_rows(model, trained, task, settings, n)),
    }
    for part in wanted:
        start = perf_counter()
        cases = []
        for number, task in enumerate(work[part][0]):
            case = _pieces(folder, part) / f"{number:04d}.csv"
            if not case.exists():
                case.parent.mkdir(parents=True, exist_ok=True)
                write_whole(case, pd.DataFrame(work[part][1](task, number)).to_csv(index=False).encode())
            cases.append(pd.read_csv(case))
            print(f"\r{part}: {number + 1} of {settings.prompts}", end="", file=sys.stderr, flush=True)
        write_whole(folder / f"{part}.csv", pd.concat(cases).to_csv(index=False).encode())
        print(f"\n{part}: {perf_counter() - start:.0f} s", flush=True)


def _pieces(folder: Path, part: str) -> Path:
    return folder / PIECES / part


def _check_same(folder: Path, study: dict[str, Any], fresh: list[str]) -> None:
    """Check that the results are of the same study, and remove those to be measured again."""
    places = {part: (folder / f"{part}.csv", _pieces(folder, part)) for part in PARTS}
    kept = [part for part in PARTS if part not in fresh and any(path.exists() for path in places[part])]
    there = folder / "study.json"
    if kept and there.exists() and json.loads(there.read_text(encoding="utf-8"))["settings"] != study["settings"]:
        raise SystemExit(
            f"{folder} contains a study with other settings ({', '.join(kept)}); use --fresh with all parts, or "
            "another --out."
        )
    for part in fresh:
        table, pieces = places[part]
        table.unlink(missing_ok=True)
        shutil.rmtree(pieces, ignore_errors=True)


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "attnviz": attnviz.__version__,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of ESC-10 from `attnviz data esc10`")
    parser.add_argument("--model", help="checkpoint folder (default: the bundled model)")
    parser.add_argument("--listener", help="folder of a listener (default: that of the model)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "editing")
    parser.add_argument("--fold", type=int, default=4, help="fold for reporting; tune on another one")
    parser.add_argument("--prompts", type=int, help="number of cases per kind")
    parser.add_argument("--steps", type=int, help="number of denoising steps (default: that of the model)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--fresh", action="store_true", help="measure the parts again")
    parser.add_argument("--tiny", action="store_true", help="smoke test")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
