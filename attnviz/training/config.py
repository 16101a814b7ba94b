"""Configuration of a training, read from a TOML file with strict checks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attnviz.errors import AudioError, TrainingError
from attnviz.io.json_files import read_toml
from attnviz.scenes import FOLDS, ComposerConfig
from attnviz.training.settings import above, plain, read_settings, within

PARTS = ("vae", "listener", "text", "unet", "vocoder", "codec", "musicgen")
CONFIGS = Path(__file__).parent / "configs"
"""Folder of the shipped configurations; each is named after its part, those of "text" also after its objective."""

FREE = ("checkpoint_every", "sample_every", "log_every", "keep_checkpoints")
"""Settings that may change when a training is resumed."""

_MOST = 10**9  # upper limit of all counts
_MAX_SEED = 2**32 - 1  # limit of NumPy's and PyTorch's generators on all devices

PartName = Literal["vae", "listener", "text", "unet", "vocoder", "codec", "musicgen"]


@dataclass(frozen=True)
class DataConfig:
    """Scenes to train on.

    Parameters
    ----------
    folds : tuple of int
        Folds of ESC-10 whose recordings are used.
    scenes : int
        Number of scenes. They are composed once and reused in every epoch.
    seed : int
        Scene `i` is drawn with the seed ``(seed, i)``.
    validation_folds : tuple of int
        Folds of the validation scenes; empty for no validation.
    validation_scenes : int
        Number of validation scenes.
    composer : mapping
        Settings of `attnviz.scenes.ComposerConfig`; missing settings have their defaults.
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
                raise TrainingError(
                    f"data.{name} contains {unknown}; ESC-10 has the folds {', '.join(map(str, FOLDS))}."
                )
        both = sorted(set(self.folds) & set(self.validation_folds))
        if both:
            raise TrainingError(
                f"data.folds and data.validation_folds share {both}; do not validate on training folds."
            )
        if not self.folds:
            raise TrainingError("data.folds is empty; give at least one fold.")
        self.composition()

    def composition(self) -> ComposerConfig:
        """Return the composer's settings."""
        try:
            return ComposerConfig.from_dict(self.composer)
        except AudioError as error:
            raise TrainingError(f"[data.composer]: {error}") from error


@dataclass(frozen=True)
class TrainingConfig:
    """Configuration of one training: the part, its data and the optimisation.

    Parameters
    ----------
    part : {"vae", "listener", "text", "unet", "vocoder", "codec", "musicgen"}
        Part to train.
    steps : int
        Number of optimiser steps.
    batch_size : int
        Items per batch on one device, before gradient accumulation.
    learning_rate : float
        Peak learning rate of AdamW.
    data : DataConfig
        Scenes to train on.
    model : mapping
        Architecture of the part, or ``{"pretrained": FOLDER}`` to start from a checkpoint.
    objective : mapping
        Settings of the loss.
    seed : int
        Seed of the weights, of the order of the data and of every random draw. The draws of a step depend only on
        the seed and the step number, so a resumed training is identical to an uninterrupted one.
    gradient_accumulation : int
        Number of batches per step.
    schedule : str
        Learning-rate schedule, by its name in diffusers: "constant", "constant_with_warmup", "linear", "cosine",
        "cosine_with_restarts" (Loshchilov and Hutter 2017, arXiv 1608.03983).
    cycles : int
        Number of cosines of "cosine_with_restarts", of equal length after the warmup. The first cycle is identical
        to a training with the schedule "cosine" that ends there.
    warmup_steps : int
        Number of steps over which the learning rate rises.
    weight_decay, beta1, beta2 : float
        Parameters of AdamW.
    max_grad_norm : float
        Maximum norm of the gradient; larger gradients are clipped.
    ema_decay : float
        Decay of the exponential moving average of the weights, which is the exported result; 0 disables it.
    mixed_precision : {"no", "bf16", "fp16"}
        As in accelerate.
    checkpoint_every, sample_every, log_every : int
        Interval in steps.
    keep_checkpoints : int
        Number of recent checkpoints to keep.
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
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"] = "constant"
    cycles: int = 1
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
        for name in ("steps", "cycles", "batch_size", "gradient_accumulation", *FREE):
            within(name, getattr(self, name), 1, _MOST)
        within("seed", self.seed, 0, _MAX_SEED)
        for name in ("warmup_steps", "weight_decay"):
            within(name, getattr(self, name), 0, _MOST)
        for name in ("learning_rate", "max_grad_norm"):
            above(name, getattr(self, name), 0)
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise TrainingError(f"{name} is {value}; it must be at least 0 and below 1.")
        if self.warmup_steps and self.schedule == "constant":
            raise TrainingError(
                f"warmup_steps is {self.warmup_steps}, but the schedule 'constant' has no warmup; use "
                "'constant_with_warmup'."
            )
        if self.cycles > 1 and self.schedule != "cosine_with_restarts":
            raise TrainingError(
                f"cycles is {self.cycles}, but the schedule {self.schedule!r} has no cycles; use "
                "'cosine_with_restarts'."
            )
        if self.warmup_steps > self.steps:
            raise TrainingError(
                f"warmup_steps is {self.warmup_steps}, more than the {self.steps} steps of the training."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a configuration file as JSON-serialisable values."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Create a configuration from the content of a file.

        Raises
        ------
        TrainingError
            If a key is unknown (the message names the closest known key) or missing, or a value has the wrong type
            or is out of range.
        """
        return read_settings(cls, values, "")


def read_config(path: str | os.PathLike[str]) -> TrainingConfig:
    """Read the TOML file of a training configuration.

    Raises
    ------
    TrainingError
        If the file does not exist, is not TOML, or has invalid settings. The message names the file and the key.
    """
    values = read_toml(path, error=TrainingError, hint="It should be the configuration of a training.")
    try:
        return TrainingConfig.from_dict(values)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
