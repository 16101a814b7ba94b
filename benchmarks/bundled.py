"""Quality of the bundled model on unknown recordings (fold 4 of ESC-10).

listener    average precision of frames, PSDS1
vae         peak signal-to-noise ratio of mel images, and the listener's scores on them
vocoder     log-mel distance of its audio, speed compared with Griffin-Lim, and the listener's scores
generation  the listener's results on generated audio, and the ROC-AUC of the maps of the same generations
scenes      frame ROC-AUC of the maps of real scenes, noised
levels      loudness of one-sound generations compared with scenes, by guidance scale
speed       duration of `attnviz generate` in seconds
size        size of the parts in megabytes

Layers and timesteps are chosen on fold 3. Each part writes its CSV file when it is done, and is not measured again
unless --fresh is given. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from bundled_parts.alignment import scene_rows  # noqa: E402
from bundled_parts.bars import judge  # noqa: E402
from bundled_parts.generation import generated  # noqa: E402
from bundled_parts.levels import level_rows, scene_level_rows  # noqa: E402
from bundled_parts.material import clips, prompts, recordings  # noqa: E402
from bundled_parts.reconstruction import listener_rows, vae_rows, vocoder_rows  # noqa: E402
from bundled_parts.report import table_lines, write_curves, write_figures, write_quality, write_summary  # noqa: E402
from bundled_parts.settings import PARTS, TABLES, Settings  # noqa: E402
from bundled_parts.size import size_rows  # noqa: E402
from bundled_parts.speed import speed_rows  # noqa: E402
from second_judge import FOLDS, SecondJudge  # noqa: E402

import attnviz  # noqa: E402
from attnviz import bundled  # noqa: E402
from attnviz.io.storage import write_whole  # noqa: E402
from attnviz.pipelines.recommended import read_recommended  # noqa: E402
from attnviz.sounds import read_esc10  # noqa: E402
from attnviz.sounds.listener_folder import trained_listener  # noqa: E402
from attnviz.sounds.recordings import list_recordings  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Run the study and print the bars."""
    options = _parser().parse_args(arguments)
    if options.fold == options.choosing_fold:
        raise SystemExit(
            f"--fold and --choosing-fold are both {options.fold}; choose and report on different folds."
        )
    checkpoint = Path(options.model) if options.model else bundled.FOLDER
    settings = Settings(
        **sampling(checkpoint),
        esc10=options.data,
        model=fingerprint(checkpoint),
        fold=options.fold,
        choosing_fold=options.choosing_fold,
    )
    settings = settings.as_tiny() if options.tiny else settings
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    study = json.loads(json.dumps({"settings": settings.to_dict(), "environment": _environment()}))
    _check_same(folder, study, options.parts if options.fresh else [])
    (folder / "study.json").write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")
    tables = _Study(settings, options.model, folder).run(options.parts)
    bars = judge(tables)
    write_summary(folder, study, bars, tables)
    write_quality(folder, tables, settings.fold)
    write_figures(folder, tables)
    write_curves(folder, (Path(options.model) if options.model else bundled.FOLDER) / "training")
    print("\n".join(table_lines(bars)))
    return 0


class _Study:
    """Measure the requested parts that are missing."""

    def __init__(self, settings: Settings, model: str | None, folder: Path) -> None:
        self.settings, self.model, self.folder = settings, model, folder
        self.pipe: Any = None
        self.trained = trained_listener(Path(model) / "listener" if model else None)
        self._clips: dict[tuple[int, int], Any] = {}

    def run(self, parts: list[str]) -> dict[str, pd.DataFrame]:
        """Measure missing parts, and read the tables of all parts."""
        work = {
            "listener": self._listener,
            "vae": self._vae,
            "vocoder": self._vocoder,
            "generation": self._generation,
            "scenes": self._scenes,
            "levels": self._levels,
            "speed": self._speed,
            "size": self._size,
        }
        for part, measure in work.items():
            if part not in parts or self._is_there(part):
                continue
            start = perf_counter()
            measure()
            print(f"{part}: {perf_counter() - start:.0f} s", flush=True)
        return {path.stem: pd.read_csv(path) for path in sorted(self.folder.glob("*.csv")) if path.stem != "bars"}

    def loaded(self) -> Any:
        """Return the pipeline, which is loaded on first use."""
        if self.pipe is None:
            self.pipe = attnviz.load(self.model) if self.model else attnviz.load()
            self.pipe.set_progress_bar_config(disable=True)
        return self.pipe

    def clips(self, fold: int, count: int) -> Any:
        """Return the scenes of a fold, composed once."""
        if (fold, count) not in self._clips:
            self._clips[fold, count] = clips(self.settings.esc10, fold, count, self.settings.seed)
        return self._clips[fold, count]

    def _listener(self) -> None:
        self._write("listener", listener_rows(self._reported(), self.trained.listener))

    def _vae(self) -> None:
        self._write("vae", vae_rows(self._reported(), self.trained.listener, self.loaded()))

    def _vocoder(self) -> None:
        pipe = self.loaded()
        if pipe.vocoder is None:
            print("vocoder: this checkpoint has none")
            return
        rows = vocoder_rows(self._reported(), self.trained.listener, pipe, self.settings.griffin_lim_clips)
        self._write("vocoder", rows)

    def _generation(self) -> None:
        s = self.settings
        for fold, count, suffix in ((s.choosing_fold, s.choosing_prompts, "_choosing"), (s.fold, s.prompts, "")):
            if self._is_there(f"generation{suffix}"):
                continue
            asked = prompts(s.esc10, fold, count, s.seed)
            heard, scores = [], []
            for row, found in generated(self.loaded(), self.trained, self._judge, asked, s, fold):
                heard.append(row)
                scores += found
                print(f"\r{len(heard)} of {count * s.seeds}", end="", file=sys.stderr, flush=True)
            self._write(f"generated{suffix}", scores)
            self._write(f"generation{suffix}", heard)  # last, since it marks both as complete

    def _scenes(self) -> None:
        s = self.settings
        for fold, count, name in (
            (s.choosing_fold, s.choosing_scenes, "scenes_choosing"),
            (s.fold, s.scenes, "scenes"),
        ):
            if not self._is_there(name):
                self._write(name, scene_rows(self.loaded(), self.clips(fold, count), s, fold))

    @cached_property
    def _judge(self) -> SecondJudge:
        """Return the second judge, trained on all available folds except the one kept for an independent check."""
        there = {recording.fold for recording in list_recordings(Path(self.settings.esc10))[0]}
        return SecondJudge(read_esc10(self.settings.esc10, folds=sorted(there & set(FOLDS))))

    def _levels(self) -> None:
        s = self.settings
        self._write("scene_levels", scene_level_rows(recordings(s.esc10, s.fold), s.scene_levels, s.seed))
        self._write("levels", list(level_rows(self.loaded(), s)))

    def _size(self) -> None:
        self._write("size", size_rows(Path(self.model) if self.model else bundled.FOLDER))

    def _speed(self) -> None:
        self._write("speed", speed_rows(self.loaded(), self.settings, self.model or ""))

    def _reported(self) -> Any:
        return self.clips(self.settings.fold, self.settings.scenes)

    def _is_there(self, table: str) -> bool:
        return (self.folder / f"{table}.csv").exists()

    def _write(self, table: str, rows: list[dict[str, Any]]) -> None:
        write_whole(self.folder / f"{table}.csv", pd.DataFrame(rows).to_csv(index=False).encode())


def sampling(model: Path) -> dict[str, Any]:
    """Return the recommended steps and guidance of a checkpoint, by their names in studies."""
    names = {
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
        "guidance_interval": "guidance_interval",
    }
    recommended = read_recommended(model)
    return {short: recommended.value(name) for short, name in names.items()}


_MEASURED = ("quality.json", "readout.json")
"""Output of the studies that is shipped with the weights."""


def fingerprint(model: Path) -> str:
    """Return a digest of the weights and settings of a checkpoint, which identifies a study."""
    known = hashlib.sha256()
    for path in sorted([*model.rglob("*.safetensors"), *model.rglob("*.json")]):
        if path.name not in _MEASURED:
            known.update(path.relative_to(model).as_posix().encode() + path.read_bytes())
    return known.hexdigest()[:16]


def _check_same(folder: Path, study: dict[str, Any], fresh: list[str]) -> None:
    """Check that the tables are of the same study, and remove those to be measured again."""
    removed = {f"{name}.csv" for part in fresh for name in TABLES[part]}
    kept = [path.name for path in folder.glob("*.csv") if path.name not in {"bars.csv", *removed}]
    there = folder / "study.json"
    if kept and there.exists() and json.loads(there.read_text(encoding="utf-8"))["settings"] != study["settings"]:
        raise SystemExit(
            f"{folder} contains a study with other settings ({', '.join(sorted(kept))}); use --fresh with all "
            "parts, or another --out."
        )
    for name in removed:
        (folder / name).unlink(missing_ok=True)


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
    parser.add_argument("--model", help="checkpoint folder with a listener/ (default: the bundled model)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "bundled")
    parser.add_argument("--fold", type=int, default=4, help="fold for reporting; tune on another one")
    parser.add_argument("--choosing-fold", type=int, default=3, help="fold for choosing layers and timesteps")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--fresh", action="store_true", help="measure the parts again")
    parser.add_argument("--tiny", action="store_true", help="smoke test")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
