"""Loudness of the bundled model, from training scenes to guidance.

scenes      levels of one-sound scenes, also after vocoder, and after auto-encoder and vocoder
forced      error of the spatial mean of the clean latents predicted from noised scenes
trajectory  brightness of the predictions during generations, unguided and guided
guidance    levels of generations, and sounds heard in them, by kind of guidance and scale

All data are of folds 1 to 3, on which choices may be made. Existing rows are not measured again. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import DDPMScheduler

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from bundled_parts.levels import level  # noqa: E402
from loudness_parts.guidance import GUIDES, plain  # noqa: E402
from loudness_parts.report import write_report  # noqa: E402
from loudness_parts.sampling import brightness, sample, vocoded  # noqa: E402

import attnviz  # noqa: E402
from attnviz.audio import log_mel, mel_to_image  # noqa: E402
from attnviz.sounds import CLASSES, PHRASES, ComposerConfig, Recording, Scene, read_esc10, scenes  # noqa: E402
from attnviz.sounds.listener_folder import trained_listener  # noqa: E402
from attnviz.training.vae import reconstruct, to_vae  # noqa: E402

PROMPTS = {name: PHRASES[name].clauses[0] for name in CLASSES}
FOLDS = (1, 2, 3)
SCALES = (7.5, 4.0, 1.0, 2.0, 10.0, 20.0)
TIMESTEPS = (999, 960, 920, 880, 840, 800, 700, 500, 300, 100)
PARTS = ("scenes", "guidance", "trajectory", "forced")


def main(arguments: list[str] | None = None) -> int:
    """Measure missing rows, and write the report."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    study = _Study(options)
    for part in options.parts:
        getattr(study, part)()
    write_report(options.out, options.steps)
    return 0


class _Study:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pipe = attnviz.load(options.model) if options.model else attnviz.load()
        self.pipe.set_progress_bar_config(disable=True)
        self.listener = trained_listener(Path(options.model) / "listener" if options.model else None)

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

        cases = [(sound, number) for number in range(self.options.scenes) for sound in CLASSES]
        self._fill("scenes", ("class", "scene"), cases, lambda sound, number: [measure(sound, number)])

    def forced(self) -> None:
        """Measure the error of the mean for noised latents of real scenes."""
        images = [
            mel_to_image(log_mel(self._scene(sound, n).mixture))
            for n in range(self.options.forced)
            for sound in CLASSES
        ]
        captions = [self._scene(sound, n).caption for n in range(self.options.forced) for sound in CLASSES]
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

        cases = [(timestep, conditional) for timestep in TIMESTEPS for conditional in (True, False)]
        self._fill("forced", ("timestep", "conditional"), cases, measure)

    def trajectory(self) -> None:
        """Measure the brightness of the predictions during generation."""

        def measure(scale: float) -> list[dict[str, Any]]:
            _, found = sample(
                self.pipe,
                list(PROMPTS.values()),
                plain,
                scale,
                steps=self.options.steps,
                seeds=range(len(CLASSES)),
            )
            kept = {min(found, key=lambda have: abs(have - wanted)) for wanted in (*TIMESTEPS, 0)}
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
                self.pipe, list(PROMPTS.values()), GUIDES[guide], scale, steps=self.options.steps, seeds=seeds
            )
            audios = self.pipe.decode_audio(latents, 10.24).audios
            rows = []
            for sound, audio in zip(CLASSES, audios, strict=True):
                hearing = attnviz.listen(audio, model=self.listener.listener, decoding=self.listener.decoding)
                rows.append({"class": sound, "level": level(audio), "heard": hearing.strongest()[0]})
            return rows

        # Without guidance, all kinds are identical.
        cases = [
            (guide, scale, seed)
            for seed in range(self.options.seeds)
            for scale in SCALES
            for guide in (GUIDES if scale != 1 else ("plain",))
        ]
        self._fill("guidance", ("guide", "scale", "seed"), cases, measure)

    @cached_property
    def _recordings(self) -> list[Recording]:
        return read_esc10(self.options.data, folds=FOLDS)

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
        measure: Callable[..., list[dict[str, Any]]],
    ) -> None:
        """Add the rows of missing cases to a table, one case after another."""
        path = self.options.out / f"{table}.csv"
        known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(names))
        done = set(known[list(names)].itertuples(index=False, name=None))
        for case in cases:
            if case in done:
                continue
            rows = pd.DataFrame([dict(zip(names, case, strict=True)) | row for row in measure(*case)])
            rows.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.5g")
            print(f"{table}: {case}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of ESC-10 from `attnviz data esc10`")
    parser.add_argument("--model", help="checkpoint folder with a listener/ (default: the bundled model)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "loudness")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, default=25, help="number of denoising steps")
    parser.add_argument("--seeds", type=int, default=2, help="number of generations per prompt")
    parser.add_argument("--scenes", type=int, default=12, help="number of one-sound scenes per class")
    parser.add_argument(
        "--forced", type=int, default=4, help="number of those scenes that are noised and predicted"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
