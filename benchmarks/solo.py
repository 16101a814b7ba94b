"""Study of solos and of the readout "sharp", on scenes with known stems.

choose      SI-SDR improvement by readout, refinement and exponent, on the choosing folds
scenes      SI-SDR improvement on two-sound scenes, one after another and anywhere, beside controls and a ceiling
sharp       frame ROC-AUC, PSDS1 and IoU in columns of 40 ms, beside unrefined maps and energy refined alike
generation  what the listener hears in the solos of generated clips

Measured cases are kept. See benchmarks/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness import Model, Study, bar_lines, parser
from harness.material import prompts
from solo_parts.choosing import tried
from solo_parts.generating import generation_rows
from solo_parts.report import bars_of, write_report
from solo_parts.separating import scene_rows
from solo_parts.sharpness import sharp_tables
from solo_parts.two_sounds import KINDS, Explained

OUTPUTS = {
    "choose": ("choose",),
    "scenes": ("scenes",),
    "sharp": ("sharp", "sharp_differences"),
    "generation": ("generation",),
}


@dataclass(frozen=True)
class Settings:
    """Settings of the study; all random draws depend on `seed`. Scenes are explained by noising."""

    esc10: Path
    model: str
    fold: int = 4
    choosing_folds: tuple[int, ...] = (1, 2, 3)
    scenes: int = 40
    choosing_scenes: int = 8
    sharp_scenes: int = 120
    prompts: int = 50
    steps: int = 100
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    timesteps: tuple[int, ...] = (100, 200, 400)
    draws: int = 2
    resamples: int = 1000
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(
            self, scenes=1, choosing_scenes=1, choosing_folds=self.choosing_folds[:1], sharp_scenes=2, prompts=1,
            steps=2, timesteps=(100,), draws=1, resamples=20,
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure missing cases, and print the targets."""
    made = parser(__doc__, "solo", tuple(OUTPUTS), data=True)
    made.add_argument("--fold", type=int, default=4, help="fold for reporting")
    made.add_argument("--choosing-folds", type=int, nargs="+", default=[1, 2, 3], help="folds for choices")
    options = made.parse_args(arguments)
    if options.fold in options.choosing_folds:
        raise SystemExit(f"--fold {options.fold} is one of --choosing-folds; report on another fold.")
    model = Model(options.model)
    settings = Settings(
        options.data, model.fingerprint, options.fold, tuple(options.choosing_folds), **model.sampling
    )
    settings = settings.as_tiny() if options.tiny else settings
    study = Study(options.out, settings, OUTPUTS, fresh=options.parts if options.fresh else ())
    explained = Explained(model, settings)
    if "choose" in options.parts:
        count = settings.choosing_scenes
        cases = [(fold, kind, at) for fold in settings.choosing_folds for kind in KINDS for at in range(count)]
        study.cases("choose", cases, lambda case, _: tried(explained, *case), digits=5)
    if "scenes" in options.parts:
        cases = [(settings.fold, kind, at) for kind in KINDS for at in range(settings.scenes)]
        study.cases("scenes", cases, lambda case, _: scene_rows(explained, *case), digits=5)
    if "sharp" in options.parts and not study.has("sharp"):
        for name, table in sharp_tables(study, explained).items():
            study.write(name, table, digits=5)
    if "generation" in options.parts:
        two = [one for one in prompts(options.data, settings.fold, 2 * settings.prompts + 2, settings.seed)
               if len(one.classes) == 2][: settings.prompts]  # fmt: skip
        measure = lambda prompt, number: generation_rows(model, settings, prompt, number)  # noqa: E731
        study.cases("generation", two, measure)
    tables = study.tables()
    bars = bars_of(tables)
    write_report(study, settings, bars, tables)
    print("\n".join(bar_lines(bars)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
