"""How well edits work on the bundled model, with the listener, beside regeneration and SDEdit.

swap      a sound's phrase in place of another's: is the new one heard, did the old one go, did the rest stay
refine    a sound's phrase added
reweight  a phrase's loudness and listener probability over its weight
inpaint   a span of a real scene drawn anew: seams, and what is heard in it
style     a real scene turned towards another sound, over strengths
command   the swaps once more as a reader makes them, with `attnviz edit swap` and no setting but the seed

A case is kept when it is done, and not measured again unless --fresh says so. See benchmarks/README.md.
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
"""Given a case and its number, what is measured of it."""


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
    """Measure the cases that are asked for and not yet there, and put each part's together."""
    wanted = [part for part in PARTS if part in parts and not (folder / f"{part}.csv").exists()]
    if not wanted:
        return
    (folder / PIECES).mkdir(exist_ok=True)
    (folder / PIECES / ".gitignore").write_text("*\n", encoding="utf-8")  # what they hold is in the tables
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
    """Refuse to add to another study, then remove what is to be measured anew."""
    places = {part: (folder / f"{part}.csv", _pieces(folder, part)) for part in PARTS}
    kept = [part for part in PARTS if part not in fresh and any(path.exists() for path in places[part])]
    there = folder / "study.json"
    if kept and there.exists() and json.loads(there.read_text(encoding="utf-8"))["settings"] != study["settings"]:
        raise SystemExit(
            f"{folder} holds a study with other settings ({', '.join(kept)}); give --fresh with all parts, or "
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
    parser.add_argument("--data", required=True, help="ESC-10, as `attnviz data esc10` leaves it")
    parser.add_argument("--model", help="checkpoint folder; the bundled model where left out")
    parser.add_argument("--listener", help="folder of a listener; the model's own where left out")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "editing")
    parser.add_argument("--fold", type=int, default=4, help="what is reported on; tune on another one")
    parser.add_argument("--prompts", type=int, help="cases a kind")
    parser.add_argument("--steps", type=int, help="denoising steps; the model's own where left out")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--fresh", action="store_true", help="measure the parts again")
    parser.add_argument("--tiny", action="store_true", help="show that everything runs")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
