"""Study of methods of attribution: which says best when and where a word sounds, and at what cost.

scenes     composed scenes with exact ground truth, as in the study of alignment
prompts    generated audio; ground truth from the listener

Every method of `attnviz.attribution` explains the same clips, at the same noise. Measured clips are kept. See
benchmarks/README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from alignment_parts.material import Item, scene_items
from alignment_parts.settings import Settings as Looks
from attribution_parts.measuring import measure
from attribution_parts.report import write_report
from harness import Model, Study, parser
from harness.material import heard_events, prompts

from attnviz.attribution import METHODS

PARTS = ("scenes", "prompts")


@dataclass(frozen=True)
class Settings:
    """Settings of the study. All methods get the same noisy latents."""

    model: str
    audio: str
    fold: int = 4
    scenes: int = 200
    prompts: int = 100
    steps: int = 100
    guidance: float = 7.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    methods: tuple[str, ...] = tuple(METHODS)
    timesteps: tuple[int, ...] = (100, 200, 400)
    draws: int = 2
    seed: int = 2024

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(
            self, scenes=1, prompts=1, steps=2, methods=("attention", "leave_one_out"), timesteps=(200,)
        )

    @property
    def looks(self) -> Looks:
        """Settings of the study of alignment, for the same scenes and seeds."""
        return Looks(audio=self.audio, model=self.model, fold=self.fold, seed=self.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure missing clips, and write the report."""
    options = _options(arguments)
    model = Model(options.model, device=options.device)
    settings = Settings(model.fingerprint, options.data.name, **model.sampling)
    given = {
        "fold": options.fold,
        "scenes": options.limit,
        "prompts": options.limit,
        "methods": options.methods and tuple(options.methods),
        "timesteps": options.timesteps and tuple(options.timesteps),
        "draws": options.draws,
    }
    settings = settings.as_tiny() if options.tiny else settings
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    study = Study(options.out, settings, {part: (part,) for part in PARTS}, fresh=options.parts * options.fresh)
    for part in options.parts:
        if not study.has(part):
            found = scene_items(options.data, settings.fold, settings.scenes, settings.looks)
            items = found if part == "scenes" else _prompted(model, options.data, settings)
            study.cases(part, items, lambda item, number: measure(model.pipe, item, settings))
    write_report(study)
    return 0


def _prompted(model: Model, esc10: Path, settings: Settings) -> Iterator[Item]:
    """Generate prompts; the ground truth of each clip is what the listener hears in it."""
    for number, prompt in enumerate(prompts(esc10, settings.fold, settings.prompts, settings.seed)):
        seed = settings.looks.seed_of(settings.fold, number)
        out: Any = model.pipe(
            prompt.text,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            guidance_interval=settings.guidance_interval,
            generator=torch.Generator().manual_seed(seed),
            duration=10.24,
        )
        name = f"prompt {number:04d}"
        events = heard_events(model.listen(out.audios[0]), prompt, name)
        yield Item(name, out.audios[0], prompt.text, events, seed)


def _options(arguments: Sequence[str] | None) -> Any:
    made = parser(__doc__, "attribution", PARTS, data=True)
    made.add_argument("--device", default="cpu")
    made.add_argument("--fold", type=int, help="fold of the recordings (default: 4)")
    made.add_argument("--limit", type=int, help="number of scenes and of prompts (default: 200 and 100)")
    made.add_argument("--methods", nargs="+", choices=list(METHODS), help="methods (default: all)")
    made.add_argument("--timesteps", nargs="+", type=int, help="timesteps (default: 100 200 400)")
    made.add_argument("--draws", type=int, help="noise draws of a timestep (default: 2)")
    return made.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
