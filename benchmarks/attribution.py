"""Study of methods of attribution: which says best when and where a word sounds, how faithfully, at what cost.

scenes     composed scenes with exact ground truth, as in the study of alignment
prompts    generated audio; ground truth from the listener
checks     faithfulness that costs many explanations: heads weakened in order, cells by local guidance,
           sensitivity to the clip and to shuffled weights

Every method of `attnviz.attribution` explains the same clips, at the same noise. Each clip and method is a piece:
a later run with more scenes, prompts or methods adds to what is there. See benchmarks/README.md.

Seconds of one core for a clip of a short caption with the bundled model, at three timesteps with two draws each:
attention, value and rollout 1, gradient 2, leave_one_out 4, shapley 5 (up to 6 words; more above),
integrated_gradients 40 to 75, heard 85, gradient_shap 175. The default run, of 300 clips, takes about 30 hours, of
which the last three take 27. `--methods attention value rollout gradient leave_one_out shapley` leaves them out;
`--timesteps 200` takes a third.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from alignment_parts.material import Item, scene_items
from alignment_parts.settings import Settings as Looks
from attribution_parts.measuring import BASE, Case, measure
from attribution_parts.model_checks import Checks
from attribution_parts.report import write_report
from harness import Model, Progress, Study, parser
from harness.material import heard_events, prompts

from attnviz.attribution import METHODS
from attnviz.io.storage import write_whole

PARTS = ("scenes", "prompts", "checks")
SIZES = {"scenes": 200, "prompts": 100, "checks": 10}
"""Clips of each part, by default."""
OTHER = "other"


@dataclass(frozen=True)
class Settings:
    """Settings of the study. All methods get the same noisy latents.

    Captions without some words are predicted with ``word_draws`` draws: a caption of 14 words needs 200 of them.
    """

    model: str
    audio: str
    fold: int = 4
    steps: int = 100
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    timesteps: tuple[int, ...] = (100, 200, 400)
    draws: int = 2
    path_steps: int = 4
    path_samples: int = 16
    heard_steps: int = 10
    cell_timestep: int = 800
    word_draws: int = 1
    orders: int = 2
    subsets: int = 16
    perturbed: int = 4
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(
            self,
            steps=2,
            timesteps=(200,),
            draws=1,
            heard_steps=1,
            path_samples=1,
            orders=2,
            subsets=4,
            perturbed=1,
        )

    @property
    def looks(self) -> Looks:
        """Settings of the study of alignment, for the same scenes and seeds."""
        return Looks(audio=self.audio, model=self.model, fold=self.fold, seed=self.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure missing clips, and write the report."""
    options = _options(arguments)
    models = {"": Model(options.model, device=options.device)}
    if options.other is not None:
        models[OTHER] = Model(str(options.other), device=options.device)
    studies = {}
    for place, model in models.items():
        settings = _settings(options, model)
        study = Study(
            options.out / place, settings, {part: (part,) for part in PARTS}, fresh=options.parts * options.fresh
        )
        for part in options.parts:
            _measured(study, part, model, settings, options)
        studies[place] = study
    if not options.other and (options.out / OTHER / "study.json").exists():
        studies[OTHER] = Study.opened(options.out / OTHER)
    write_report(studies[""], studies.get(OTHER))
    return 0


def _settings(options: Any, model: Model) -> Settings:
    settings = Settings(model.fingerprint, options.data.name, **model.sampling)
    settings = settings.as_tiny() if options.tiny else settings
    given = {
        "fold": options.fold,
        "timesteps": options.timesteps and tuple(options.timesteps),
        "draws": options.draws,
        "path_samples": options.path_samples,
    }
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _measured(study: Study, part: str, model: Model, settings: Settings, options: Any) -> None:
    """Measure the missing clips and methods of a part, clip by clip, and write its table."""
    tiny = ("attention", "leave_one_out")
    methods = options.methods or (tiny if options.tiny else list(METHODS))
    count = getattr(options, part)
    count = count if count is not None else 1 if options.tiny else SIZES[part]
    if part == "prompts":
        items = _prompted(study, model, options.data, settings, count)
    else:
        items = scene_items(options.data, settings.fold, count, settings.looks)
    progress = Progress(f"{study.folder.name}: {part}", count)
    for number, item in enumerate(items):
        case = Case(model.pipe, item, settings)
        if part == "checks":
            checks = functools.cache(functools.partial(Checks, case))
            study.case("checks/controls", number, lambda checks=checks: checks().controls())
            for name in methods:
                study.case(f"checks/{name}", number, lambda name=name, checks=checks: checks().method(name))
        else:
            for name in methods:
                save = functools.partial(_save, study, part, number) if name == BASE else None
                study.case(
                    f"{part}/{name}", number, lambda name=name, case=case, save=save: measure(case, name, save)
                )
        progress.step()
    names = [name for name in ("controls", *METHODS) if (study.folder / "pieces" / part / name).is_dir()]
    study.write(part, [row for name in names for row in study.rows(f"{part}/{name}")], 6)


def _save(study: Study, part: str, number: int, alignment: Any) -> None:
    """Save the alignment of attention, of which the controls of a pool are made."""
    alignment.save(study.piece(f"{part}/alignment", f"{number:04d}"), overwrite=True)


def _prompted(study: Study, model: Model, esc10: Path, settings: Settings, count: int) -> Iterator[Item]:
    """Generate prompts, each once; the ground truth of each clip is what the listener hears in it."""
    for number, prompt in enumerate(prompts(esc10, settings.fold, count, settings.seed)):
        seed = settings.looks.seed_of(settings.fold, number)
        path = study.piece("prompts/audio", f"{number:04d}.npy")
        if not path.exists():
            out: Any = model.pipe(
                prompt.text,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                guidance_interval=settings.guidance_interval,
                generator=torch.Generator().manual_seed(seed),
                duration=10.24,
            )
            write_whole(path, _as_npy(out.audios[0]))
        audio = np.load(path)
        name = f"prompt {number:04d}"
        yield Item(name, audio, prompt.text, heard_events(model.listen(audio), prompt, name), seed)


def _as_npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _options(arguments: Sequence[str] | None) -> Any:
    made = parser(__doc__, "attribution", PARTS, data=True)
    made.add_argument("--other", type=Path, help="folder of a second model, which is compared")
    made.add_argument("--device", default="cpu")
    made.add_argument("--fold", type=int, help="fold of the recordings (default: 4)")
    for part, size in SIZES.items():
        made.add_argument(f"--{part}", type=int, help=f"number of clips of this part (default: {size})")
    made.add_argument("--methods", nargs="+", choices=list(METHODS), help="methods (default: all)")
    made.add_argument("--timesteps", nargs="+", type=int, help="timesteps (default: 100 200 400)")
    made.add_argument("--draws", type=int, help="noise draws of a timestep (default: 2)")
    made.add_argument("--path-samples", type=int, help="random points of gradient_shap (default: 16)")
    return made.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
