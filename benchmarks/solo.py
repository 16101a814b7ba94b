"""Study of solos and of the readout "sharp" on scenes with known stems. An interrupted study continues.

choose      SI-SDR improvement by readout, exponent and refinement, on the choosing folds
scenes      SI-SDR improvement on two-sound scenes, one after another and anywhere, beside controls and a ceiling
sharp       frame ROC-AUC, PSDS1 and IoU in columns of 40 ms, beside unrefined maps and energy refined alike
generation  solos of generated clips: does the listener hear the phrase, and not the other?

Every part writes its CSV file when it is done, and is not measured again unless --fresh is given. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from bundled import fingerprint, sampling  # noqa: E402
from solo_parts.choosing import choose  # noqa: E402
from solo_parts.generating import generation_rows  # noqa: E402
from solo_parts.report import bars_of, write_summary  # noqa: E402
from solo_parts.separating import scene_rows  # noqa: E402
from solo_parts.settings import PARTS, Settings  # noqa: E402
from solo_parts.sharpness import sharp_tables  # noqa: E402

import attnviz  # noqa: E402
from attnviz import bundled  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Measure the requested parts that are missing, and print the bars."""
    options = _parser().parse_args(arguments)
    checkpoint = Path(options.model) if options.model else bundled.FOLDER
    if options.fold in options.choosing_folds:
        raise SystemExit(f"--fold {options.fold} is one of --choosing-folds; report on another fold.")
    settings = Settings(
        **sampling(checkpoint),
        model=fingerprint(checkpoint),
        esc10=options.data,
        fold=options.fold,
        choosing_folds=tuple(options.choosing_folds),
    )
    settings = settings.as_tiny() if options.tiny else settings
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    study = json.loads(json.dumps({"settings": settings.to_dict(), "torch": torch.__version__}))
    there = folder / "study.json"
    known = json.loads(there.read_text("utf-8"))["settings"] if there.exists() else study["settings"]
    if known != study["settings"] and not options.fresh:
        raise SystemExit(f"{folder} contains a study with other settings; use --fresh or another --out.")
    there.write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")

    def load() -> Any:
        pipe = attnviz.load(options.model) if options.model else attnviz.load()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    listener = Path(options.model) / "listener" if options.model else None
    work = {
        "choose": lambda: {"choose": choose(load(), settings)},
        "scenes": lambda: {"scenes": scene_rows(load(), settings)},
        "sharp": lambda: sharp_tables(load(), settings),
        "generation": lambda: {"generation": generation_rows(load(), listener, settings)},
    }
    for part, measure in work.items():
        if part in options.parts and (options.fresh or not (folder / f"{part}.csv").exists()):
            for name, table in measure().items():
                table.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g")
            print(f"{part}: done", flush=True)
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv")) if path.stem != "bars"}
    bars = bars_of(tables)
    bars.to_csv(folder / "bars.csv", index=False)
    write_summary(folder, settings, bars, tables)
    print(bars.to_string(index=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help="folder of ESC-10 from `attnviz data esc10`")
    add("--model", help="checkpoint folder (default: the bundled model)")
    add("--out", type=Path, default=HERE.parent / "results" / "solo")
    add("--fold", type=int, default=4, help="fold for reporting")
    add("--choosing-folds", type=int, nargs="+", default=[1, 2, 3], help="folds for choices")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--fresh", action="store_true", help="measure the requested parts again")
    add("--tiny", action="store_true", help="smoke test")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
