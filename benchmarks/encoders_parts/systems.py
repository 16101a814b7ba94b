"""Generate and explain with the compared models: denoisers of spectrograms, and language models of codes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import librosa
import numpy as np
import torch
from harness import Model

import attnviz
from attnviz.cli.family_job import FamilyGeneration
from attnviz.maps import AttentionMaps
from attnviz.models.pipelines.published import ModelWithProcessor, find_published
from attnviz.models.pipelines.sampling import Sampling
from encoders_parts.settings import Settings

RATE = 16_000
SECONDS = 10.24


@dataclass(frozen=True)
class System:
    """A model of the comparison, loaded once, on first use.

    Parameters
    ----------
    name : str
        Its name in tables: the encoders, such as ``C+T``.
    checkpoint : str
        Folder or hub name. Empty: the bundled model.
    """

    name: str
    checkpoint: str = ""

    @property
    def model(self) -> Model:
        """Its checkpoint, for what identifies it and for the listener, which is the bundled one."""
        return Model(self.checkpoint or None)

    @property
    def loaded(self) -> Any:
        """The pipeline, or the model of codes with its processor."""
        return _load(self.checkpoint)

    @property
    def of_codes(self) -> bool:
        """Whether it is a language model of codes, whose maps have no frequencies."""
        return isinstance(self.loaded, ModelWithProcessor)

    @property
    def encoders(self) -> list[str]:
        """Types of its text encoders (clip, t5, clap, bert), in the order of their keys."""
        if self.of_codes:
            found = [self.loaded.model.text_encoder]
        else:
            conditioner = getattr(self.loaded, "conditioner", None)
            found = [self.loaded.text_encoder] if conditioner is None else list(conditioner.encoders)
        return [str(encoder.config.model_type).removesuffix("_text_model") for encoder in found]

    @property
    def weights(self) -> int:
        """Number of weights that generate: the denoiser, or the decoder of codes."""
        part = self.loaded.model.decoder if self.of_codes else self.loaded.unet
        return sum(weight.numel() for weight in part.parameters())

    def generate(self, text: str, seed: int, settings: Settings) -> tuple[np.ndarray, AttentionMaps, float]:
        """Return the audio ``(samples,)`` at 16 kHz of a prompt, its maps, and the seconds it took."""
        start = time.perf_counter()
        if self.of_codes:
            request = FamilyGeneration(text, Sampling(seed=seed), duration=SECONDS)
            audio, rate, maps = request.run(self.loaded, find_published(self.checkpoint))
            audio = librosa.resample(audio, orig_sr=rate, target_sr=RATE)[: int(SECONDS * RATE)]
            return audio, maps, time.perf_counter() - start
        with attnviz.trace(self.loaded, tokens="all") as trace:
            out = self.loaded(
                text,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                guidance_interval=settings.guidance_interval,
                generator=torch.Generator().manual_seed(seed),
                duration=SECONDS,
            )
        return out.audios[0], trace.maps, time.perf_counter() - start

    def explain(self, audio: np.ndarray, caption: str, seed: int, settings: Settings) -> AttentionMaps:
        """Return the maps of a clip ``(samples,)`` at 16 kHz with its caption."""
        if self.of_codes:
            return attnviz.explain(self.loaded, audio, caption, sampling_rate=RATE, normalize=False)
        return attnviz.explain(
            self.loaded,
            audio,
            caption,
            timesteps=settings.timesteps,
            draws=settings.draws,
            seed=seed,
            normalize=False,
            sampling_rate=RATE,
            tokens="all",
        )


@cache
def _load(checkpoint: str) -> Any:
    loaded = attnviz.load(checkpoint) if checkpoint else attnviz.load()
    if not isinstance(loaded, ModelWithProcessor):
        loaded.set_progress_bar_config(disable=True)
    return loaded
