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

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from bundled_parts.alignment import scene_rows
from bundled_parts.bars import judge
from bundled_parts.checkpoint import size_rows, speed_rows
from bundled_parts.generation import generated, heard_rows, map_rows
from bundled_parts.levels import level_rows, scene_level_rows
from bundled_parts.reconstruction import listener_rows, vae_rows, vocoder_rows
from bundled_parts.report import write_curves, write_figures, write_quality, write_summary
from bundled_parts.settings import PARTS, TABLES, Settings
from harness import Model, Study, bar_lines, parser
from harness.material import clips, prompts, recordings
from harness.study import timed
from second_judge import FOLDS, SecondJudge

from attnviz.scenes import read_esc10
from attnviz.scenes.recordings import list_recordings


def main(arguments: list[str] | None = None) -> int:
    """Run the study and print the bars."""
    options = _parser().parse_args(arguments)
    if options.fold == options.choosing_fold:
        raise SystemExit(
            f"--fold and --choosing-fold are both {options.fold}; choose and report on different folds."
        )
    model = Model(options.model, Path(options.model) / "listener" if options.model else None)
    settings = Settings(
        **model.sampling,
        esc10=options.data,
        model=model.fingerprint,
        fold=options.fold,
        choosing_fold=options.choosing_fold,
    )
    settings = settings.as_tiny() if options.tiny else settings
    study = Study(options.out, settings, TABLES, fresh=options.parts if options.fresh else ())
    measures = _Measures(study, model, settings)
    for part in PARTS:
        if part in options.parts and not all(map(study.has, TABLES[part])):
            with timed(part):
                getattr(measures, part)()
    tables = study.tables()
    bars = judge(tables)
    write_summary(study, bars, tables)
    write_quality(study.folder, tables, settings.fold)
    write_figures(study.folder, tables)
    write_curves(study.folder, model.folder / "training")
    print("\n".join(bar_lines(bars)))
    return 0


class _Measures:
    """The parts of the study; each writes its tables."""

    def __init__(self, study: Study, model: Model, settings: Settings) -> None:
        self.study, self.model, self.settings = study, model, settings
        self._clips: dict[tuple[int, int], Any] = {}

    def clips(self, fold: int, count: int) -> Any:
        """Return the scenes of a fold, composed once."""
        if (fold, count) not in self._clips:
            self._clips[fold, count] = clips(self.settings.esc10, fold, count, self.settings.seed)
        return self._clips[fold, count]

    def listener(self) -> None:
        """Measure the listener."""
        self.study.write("listener", listener_rows(self._reported, self.model.listener.listener))

    def vae(self) -> None:
        """Measure the auto-encoder."""
        self.study.write("vae", vae_rows(self._reported, self.model.listener.listener, self.model.pipe))

    def vocoder(self) -> None:
        """Measure the vocoder."""
        if self.model.pipe.vocoder is None:
            print("vocoder: this checkpoint has none")
            return
        count = self.settings.griffin_lim_clips
        self.study.write(
            "vocoder", vocoder_rows(self._reported, self.model.listener.listener, self.model.pipe, count)
        )

    def generation(self) -> None:
        """Generate every prompt, and measure what is heard and the maps."""
        s = self.settings
        for fold, count, suffix in ((s.choosing_fold, s.choosing_prompts, "_choosing"), (s.fold, s.prompts, "")):
            asked = prompts(s.esc10, fold, count, s.seed)
            cases = [(number, prompt, seed) for number, prompt in enumerate(asked) for seed in range(s.seeds)]
            # Of each case, one row of what is heard and rows of the maps, which are two tables.
            both = f"generation{suffix}", f"generated{suffix}"
            self.study.measure(both[0], cases, self._generated(fold))
            rows = self.study.rows(both[0])
            for table, wanted in zip(both[::-1], (map_rows, heard_rows), strict=True):
                self.study.write(table, wanted(rows))

    def _generated(self, fold: int) -> Callable[[Any, int], list[dict[str, Any]]]:
        def measure(case: Any, _: int) -> list[dict[str, Any]]:
            number, prompt, seed = case
            noise = self.settings.seed_of(fold, number, seed)
            return generated(self.model, self._judge, prompt, seed, noise, self.settings)

        return measure

    def scenes(self) -> None:
        """Explain real scenes."""
        s = self.settings
        for fold, count, table in (
            (s.choosing_fold, s.choosing_scenes, "scenes_choosing"),
            (s.fold, s.scenes, "scenes"),
        ):
            if not self.study.has(table):
                self.study.cases(table, self.clips(fold, count), self._explained(fold))

    def _explained(self, fold: int) -> Callable[[Any, int], list[dict[str, Any]]]:
        s = self.settings
        return lambda clip, number: scene_rows(self.model.pipe, clip, s, s.seed_of(fold, number))

    def levels(self) -> None:
        """Measure levels of generations and of scenes."""
        s = self.settings
        self.study.write("scene_levels", scene_level_rows(recordings(s.esc10, s.fold), s.scene_levels, s.seed))
        self.study.write("levels", level_rows(self.model.pipe, s))

    def size(self) -> None:
        """Measure the size of the checkpoint."""
        self.study.write("size", size_rows(self.model.folder))

    def speed(self) -> None:
        """Measure the time of a generation."""
        self.study.write("speed", speed_rows(self.model, self.settings))

    @cached_property
    def _judge(self) -> SecondJudge:
        """The second judge, trained on all available folds except the one kept for an independent check."""
        there = {recording.fold for recording in list_recordings(self.settings.esc10)[0]}
        return SecondJudge(read_esc10(self.settings.esc10, folds=sorted(there & set(FOLDS))))

    @property
    def _reported(self) -> Any:
        return self.clips(self.settings.fold, self.settings.scenes)


def _parser() -> Any:
    options = parser(__doc__, "bundled", PARTS, data=True)
    options.add_argument("--fold", type=int, default=4, help="fold for reporting; tune on another one")
    options.add_argument("--choosing-fold", type=int, default=3, help="fold for choosing layers and timesteps")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
