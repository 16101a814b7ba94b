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
import json
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from alignment_parts.bars import judge  # noqa: E402
from alignment_parts.figures import write_figures  # noqa: E402
from alignment_parts.report import bar_lines, write_summary  # noqa: E402
from alignment_parts.settings import WAYS, Settings  # noqa: E402
from alignment_parts.study import PARTS, Source, Study, read_tables  # noqa: E402
from bundled import fingerprint, sampling  # noqa: E402

import attnviz  # noqa: E402
from attnviz import bundled  # noqa: E402
from attnviz.maps import FittedReadout  # noqa: E402
from attnviz.sounds.listener_folder import trained_listener  # noqa: E402

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
    settings = _settings(options, readout)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    study = json.loads(json.dumps({"settings": settings.to_dict(), "environment": _environment(options.device)}))
    _check_same(folder, study, fresh=options.fresh)
    listener = None if options.model is None else Path(options.model) / "listener"
    trained = trained_listener(listener if listener is not None and listener.is_dir() else None)

    def load() -> Any:
        pipe = attnviz.load(options.model).to(options.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    source = Source(options.data, options.events, options.audio)
    Study(folder, settings, source, load, trained, readout).run(options.parts, options.ways)
    tables = read_tables(folder)
    bars = judge(tables)
    write_summary(folder, study, bars, tables, trained.quality)
    write_figures(folder, tables)
    print("\n".join(bar_lines(bars)))
    return 0


def _settings(options: argparse.Namespace, readout: FittedReadout | None) -> Settings:
    if (options.events is None) != (options.audio is None):
        raise SystemExit("--events (annotations) and --audio (folder of the audio) must be given together.")
    if (options.events is None) == (options.data is None):
        raise SystemExit("Give --data (ESC-10 from `attnviz data esc10`), or --events and --audio.")
    if options.fold == options.choosing_fold:
        raise SystemExit(
            f"--fold and --choosing-fold are both {options.fold}; choose and report on different folds."
        )
    model = bundled.FOLDER if options.model is None else Path(options.model)
    settings = Settings(
        **(sampling(model) if model.is_dir() else {}),
        audio=Path(options.data or options.events).name,
        model=fingerprint(model) if model.is_dir() else str(options.model),
        readout=None if readout is None else readout.name,
        fold=options.fold,
        choosing_fold=options.choosing_fold,
    )
    settings = settings.as_tiny() if options.tiny else settings
    return replace(
        settings, **{name: getattr(options, name) for name in COUNTS if getattr(options, name) is not None}
    )


def _check_same(folder: Path, study: dict[str, Any], *, fresh: bool) -> None:
    """Remove results to be measured again, and check that the others are of the same study."""
    there = folder / "study.json"
    if fresh and there.exists():  # only folders with this file are removed
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if there.exists() and json.loads(there.read_text(encoding="utf-8"))["settings"] != study["settings"]:
        raise SystemExit(f"{folder} contains a study with other settings; use --fresh or another --out.")
    there.write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")


def _environment(device: str) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "device": device,
        "attnviz": attnviz.__version__,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", help="folder of ESC-10 from `attnviz data esc10`")
    add("--model", help="checkpoint folder or Hugging Face repository (default: the bundled model)")
    add("--events", type=Path, help="annotations of real clips with captions, such as audiogrounding.json")
    add("--audio", type=Path, help="folder with the audio of those clips")
    add("--readout", type=Path, help="fitted readout to score instead of fitting one")
    add("--out", type=Path, default=HERE.parent / "results" / "alignment")
    add("--fold", type=int, default=4, help="fold for reporting; tune on another one")
    add("--choosing-fold", type=int, default=3, help="fold for fitting readouts and choosing layers")
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="methods of `attnviz.explain`")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for name, what in COUNTS.items():
        default = Settings.__dataclass_fields__[name].default
        add(f"--{name.replace('_', '-')}", type=int, help=f"{what} (default: {default})")
    add("--device", default="cpu")
    add("--fresh", action="store_true", help="measure everything again")
    add("--tiny", action="store_true", help="smoke test")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
