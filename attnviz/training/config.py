"""What one part's training is made of: a TOML file, read strictly."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attnviz.errors import AudioError, TrainingError
from attnviz.io.json_files import read_toml
from attnviz.sounds import FOLDS, ComposerConfig
from attnviz.training.settings import above, plain, read_settings, within

PARTS = ("vae", "listener", "unet", "vocoder")
CONFIGS = Path(__file__).parent / "configs"
"""Where the shipped configurations are; each is named after its part."""

FREE = ("checkpoint_every", "sample_every", "log_every", "keep_checkpoints")
"""Settings that may change from one start of a training to the next."""

_MOST = 10**9  # of anything that is counted
_MAX_SEED = 2**32 - 1  # NumPy's and PyTorch's generators take no more on every device

PartName = Literal["vae", "listener", "unet", "vocoder"]


@dataclass(frozen=True)
class DataConfig:
    """Which scenes are trained on.

    Parameters
    ----------
    folds : tuple of int
        Folds of ESC-10 whose recordings may sound.
    scenes : int
        How many are composed, once, and gone through again and again.
    seed : int
        Scene `i` is drawn with the seed ``(seed, i)``.
    validation_folds : tuple of int
        Folds of the scenes that the model is measured on as it goes; empty: none are.
    validation_scenes : int
        How many.
    composer : mapping
        Settings of `attnviz.sounds.ComposerConfig`; what is left out has its default.
    """

    folds: tuple[int, ...]
    scenes: int
    seed: int = 0
    validation_folds: tuple[int, ...] = ()
    validation_scenes: int = 100
    composer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within("data.scenes", self.scenes, 1, _MOST)
        within("data.validation_scenes", self.validation_scenes, 1, _MOST)
        within("data.seed", self.seed, 0, _MAX_SEED)
        for name in ("folds", "validation_folds"):
            unknown = [fold for fold in getattr(self, name) if fold not in FOLDS]
            if unknown:
                raise TrainingError(f"data.{name} holds {unknown}; ESC-10 has folds {', '.join(map(str, FOLDS))}.")
        both = sorted(set(self.folds) & set(self.validation_folds))
        if both:
            raise TrainingError(
                f"data.folds and data.validation_folds share {both}: what is measured must not be trained on."
            )
        if not self.folds:
            raise TrainingError("data.folds is empty; at least one fold is needed.")
        self.composition()

    def composition(self) -> ComposerConfig:
        """Return the composer's settings."""
        try:
            return ComposerConfig.from_dict(self.composer)
        except AudioError as error:
            raise TrainingError(f"[data.composer]: {error}") from error


@dataclass(frozen=True)
class TrainingConfig:
    """One training: what is optimised, on what, how long.

    Parameters
    ----------
    part : {"vae", "listener", "unet", "vocoder"}
        What is trained.
    steps : int
        Optimiser steps.
    batch_size : int
        Items of a step on one device, before accumulation.
    learning_rate : float
        Of AdamW, at its peak.
    data : DataConfig
        The scenes.
    model : mapping
        What the part is built from, or ``{"pretrained": FOLDER}``: a checkpoint to go on from.
    objective : mapping
        Settings of the part's loss.
    seed : int
        Of the weights, the order of the data and every draw. A step's draws depend on the seed and the step
        alone, so a resumed training is the uninterrupted one.
    gradient_accumulation : int
        Batches of a step.
    schedule : str
        Learning rate over steps, by diffusers' names: "constant", "constant_with_warmup", "linear", "cosine".
    warmup_steps : int
        Steps in which the learning rate rises.
    weight_decay, beta1, beta2 : float
        Of AdamW.
    max_grad_norm : float
        Longer gradients are shortened to this.
    ema_decay : float
        Of the exponential moving average of the weights, which is what is exported; 0: none is kept.
    mixed_precision : {"no", "bf16", "fp16"}
        accelerate's.
    checkpoint_every, sample_every, log_every : int
        Steps.
    keep_checkpoints : int
        How many of the newest checkpoints stay.
    """

    part: PartName
    steps: int
    batch_size: int
    learning_rate: float
    data: DataConfig
    model: Mapping[str, Any]
    objective: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    gradient_accumulation: int = 1
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    checkpoint_every: int = 200
    sample_every: int = 200
    log_every: int = 10
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation", *FREE):
            within(name, getattr(self, name), 1, _MOST)
        within("seed", self.seed, 0, _MAX_SEED)
        for name in ("warmup_steps", "weight_decay"):
            within(name, getattr(self, name), 0, _MOST)
        for name in ("learning_rate", "max_grad_norm"):
            above(name, getattr(self, name), 0)
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise TrainingError(f"{name} is {value}; 0 or more, and below 1, is needed.")
        if self.warmup_steps and self.schedule == "constant":
            raise TrainingError(f"warmup_steps is {self.warmup_steps}; schedule 'constant_with_warmup' has some.")
        if self.warmup_steps > self.steps:
            raise TrainingError(
                f"warmup_steps is {self.warmup_steps}, more than the {self.steps} steps there are."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds, as plain values that JSON can hold."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Read what a file holds.

        Raises
        ------
        TrainingError
            An unknown or missing key (the nearest known one is named), a value of another kind or out of range.
        """
        return read_settings(cls, values, "")


def read_config(path: str | os.PathLike[str]) -> TrainingConfig:
    """Read a training's TOML file.

    Raises
    ------
    TrainingError
        No such file, no TOML, or settings that are none; the message names the file and the key.
    """
    values = read_toml(path, error=TrainingError, hint="The configuration of a training was to be read from it.")
    try:
        return TrainingConfig.from_dict(values)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
