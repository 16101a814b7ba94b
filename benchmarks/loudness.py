"""Loudness of the bundled model, from training scenes to guidance.

scenes      levels of one-sound scenes, also after vocoder, and after auto-encoder and vocoder
forced      error of the spatial mean of the clean latents predicted from noised scenes
trajectory  brightness of the predictions during generations, unguided and guided
guidance    levels of generations, and sounds heard in them, by kind of guidance and scale

All data are of folds 1 to 3, on which choices may be made. Measured cases are kept. See benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bundled_parts.levels import level
from diffusers import DDPMScheduler
from harness import Model, Study, parser
from loudness_parts.guidance import GUIDES, plain
from loudness_parts.report import write_report
from loudness_parts.sampling import brightness, sample, vocoded

from attnviz.audio import log_mel, mel_to_image
from attnviz.scenes import CLASSES, PHRASES, ComposerConfig, Recording, Scene, read_esc10, scenes
from attnviz.training.vae import reconstruct, to_vae

PROMPTS = {name: PHRASES[name].clauses[0] for name in CLASSES}
FOLDS = (1, 2, 3)
SCALES = (7.5, 4.0, 1.0, 2.0, 10.0, 20.0)
TIMESTEPS = (999, 960, 920, 880, 840, 800, 700, 500, 300, 100)
PARTS = ("scenes", "guidance", "trajectory", "forced")


@dataclass(frozen=True)
class Settings:
    """Settings of the study: numbers of seeds, of scenes per class, and of those that are noised."""

    model: str
    steps: int = 25
    seeds: int = 2
    scenes: int = 12
    forced: int = 4
    scales: tuple[float, ...] = SCALES
    timesteps: tuple[int, ...] = TIMESTEPS

    def as_tiny(self) -> Settings:
        """Return settings for a smoke test."""
        return replace(self, steps=2, seeds=1, scenes=1, forced=1, scales=(1.0, 4.0), timesteps=(999, 300))


def main(arguments: list[str] | None = None) -> int:
    """Measure missing cases, and write the report."""
    options = parser(__doc__, "loudness", PARTS, data=True).parse_args(arguments)
    model = Model(options.model)
    settings = Settings(model.fingerprint)
    settings = settings.as_tiny() if options.tiny else settings
    study = Study(options.out, settings, {part: (part,) for part in PARTS}, fresh=options.parts * options.fresh)
    measures = _Measures(study, model, settings, options.data)
    for part in options.parts:
        getattr(measures, part)()
    write_report(study, settings.steps)
    return 0


class _Measures:
    """The parts of the study."""

    def __init__(self, study: Study, model: Model, settings: Settings, data: Path) -> None:
        self.study, self.model, self.settings, self.data = study, model, settings, data

    @property
    def pipe(self) -> Any:
        return self.model.pipe

    def scenes(self) -> None:
        """Measure scenes of one sound, also after vocoder and auto-encoder."""

        def measure(sound: str, number: int) -> dict[str, float]:
            scene = self._scene(sound, number)
            image = mel_to_image(log_mel(scene.mixture))
            again = reconstruct(self.pipe.vae, image[None])[0]
            return {
                "level": level(scene.mixture),
                "vocoder": level(vocoded(self.pipe, image)),
                "autoencoder": level(vocoded(self.pipe, again)),
                "brightness": float(image.mean()),
                "brightness_autoencoder": float(again.mean()),
            }

        cases = [(sound, number) for number in range(self.settings.scenes) for sound in CLASSES]
        self._fill("scenes", ("class", "scene"), cases, lambda sound, number: [measure(sound, number)])

    def forced(self) -> None:
        """Measure the error of the mean for noised latents of real scenes."""
        images = [
            mel_to_image(log_mel(self._scene(sound, n).mixture))
            for n in range(self.settings.forced)
            for sound in CLASSES
        ]
        captions = [self._scene(sound, n).caption for n in range(self.settings.forced) for sound in CLASSES]
        scheduler = DDPMScheduler.from_config(self.pipe.scheduler.config)
        with torch.no_grad():
            encoded = [self.pipe.vae.encode(to_vae(image[None])).latent_dist.mean for image in images]
        latents = torch.cat(encoded)

        @torch.no_grad()
        def measure(timestep: int, conditional: bool) -> list[dict[str, float]]:
            keys, nothing = self.pipe.encode_prompt(captions, torch.device("cpu"), 1, True)
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
            steps = torch.full((len(latents),), timestep)
            noisy = scheduler.add_noise(latents, noise, steps)
            velocity = self.pipe.unet(noisy, steps, encoder_hidden_states=keys if conditional else nothing).sample
            signal = scheduler.alphas_cumprod[timestep].sqrt()
            clean = signal * noisy - (1 - signal**2).sqrt() * velocity
            missed = (velocity - scheduler.get_velocity(latents, noise, steps)).square()
            means = (clean - latents).mean((2, 3))
            return [
                {
                    "loss": float(missed.mean()),
                    "mean_error": float(means.square().mean().sqrt()),
                    "bias": float(means.mean(0).abs().mean()),
                }
            ]

        cases = [(timestep, conditional) for timestep in self.settings.timesteps for conditional in (True, False)]
        self._fill("forced", ("timestep", "conditional"), cases, measure)

    def trajectory(self) -> None:
        """Measure the brightness of the predictions during generation."""

        def measure(scale: float) -> list[dict[str, Any]]:
            _, found = sample(
                self.pipe,
                list(PROMPTS.values()),
                plain,
                scale,
                steps=self.settings.steps,
                seeds=range(len(CLASSES)),
            )
            kept = {min(found, key=lambda have: abs(have - wanted)) for wanted in (*self.settings.timesteps, 0)}
            return [
                {"timestep": timestep, "class": sound, "brightness": value}
                for timestep in sorted(kept, reverse=True)
                for sound, value in zip(CLASSES, brightness(self.pipe, found[timestep]), strict=True)
            ]

        self._fill("trajectory", ("scale",), [(1.0,), (4.0,), (7.5,)], measure)

    def guidance(self) -> None:
        """Measure levels and sounds heard, by kind of guidance and scale."""

        def measure(guide: str, scale: float, seed: int) -> list[dict[str, Any]]:
            seeds = [1000 * seed + number for number in range(len(CLASSES))]
            latents, _ = sample(
                self.pipe, list(PROMPTS.values()), GUIDES[guide], scale, steps=self.settings.steps, seeds=seeds
            )
            audios = self.pipe.decode_audio(latents, 10.24).audios
            rows = []
            for sound, audio in zip(CLASSES, audios, strict=True):
                hearing = self.model.listen(audio)
                rows.append({"class": sound, "level": level(audio), "heard": hearing.strongest()[0]})
            return rows

        # Without guidance, all kinds are identical.
        cases = [
            (guide, scale, seed)
            for seed in range(self.settings.seeds)
            for scale in self.settings.scales
            for guide in (GUIDES if scale != 1 else ("plain",))
        ]
        self._fill("guidance", ("guide", "scale", "seed"), cases, measure)

    @cached_property
    def _recordings(self) -> list[Recording]:
        return read_esc10(self.data, folds=FOLDS)

    def _scene(self, sound: str, number: int) -> Scene:
        recordings = [each for each in self._recordings if each.sound == sound]
        # The class is part of the seed, so that scenes of two classes share no background.
        seed = (2024, CLASSES.index(sound), number)
        return next(scenes(recordings, 1, seed, ComposerConfig(events=(1, 1))))

    def _fill(
        self,
        table: str,
        names: tuple[str, ...],
        cases: Iterable[tuple[Any, ...]],
        measure: Any,
    ) -> None:
        """Measure a table, whose first columns name the case."""

        def rows(case: tuple[Any, ...], number: int) -> list[dict[str, Any]]:
            return [dict(zip(names, case, strict=True)) | row for row in measure(*case)]

        self.study.cases(table, cases, rows, digits=5)


if __name__ == "__main__":
    raise SystemExit(main())
