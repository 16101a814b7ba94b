"""Prepare a training: processes, scenes, and the checkpoint to start from."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list

from attnviz.errors import AttnVizWarning, TrainingError
from attnviz.training.checkpoints import list_checkpoints
from attnviz.training.config import DataConfig, TrainingConfig
from attnviz.training.run_folder import check_run
from attnviz.training.scene_store import SceneStore

_VALIDATION_SEED = 1_000_000  # added to the seed, so that validation scenes differ from training scenes


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Create the accelerator. The training loop accumulates batches, not the accelerator.

    Raises
    ------
    TrainingError
        If the precision is not available, or accelerate is configured to distribute a model over processes.
    """
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            step_scheduler_with_optimizer=False,
        )
    except ValueError as error:  # a different precision earlier in this process
        raise TrainingError(f"mixed_precision {config.mixed_precision!r} is not available: {error}") from error
    if config.mixed_precision != "no" and not accelerator.native_amp:  # it would silently train in float32
        raise TrainingError(
            f"mixed_precision {config.mixed_precision!r} is not available on {accelerator.device.type}. Use "
            "'bf16' or 'no'."
        )
    if accelerator.distributed_type != "NO" and not accelerator.distributed_type.startswith("MULTI_"):
        raise TrainingError(
            f"accelerate is configured for {accelerator.distributed_type.value}; use one process, or several with "
            "a whole copy of the model each. Change this with accelerate config."
        )
    if accelerator.num_processes > 1:
        atexit.register(accelerator.end_training)  # an open process group at exit may abort the process
    return accelerator


def where_to_begin(run: Path, config: TrainingConfig, resume: bool, overwrite: bool) -> Path | None:
    """Return the checkpoint to resume from, if any.

    Raises
    ------
    OutputError, TrainingError
        See `check_run`.
    """
    check_run(run, config, resume=resume, overwrite=overwrite)
    checkpoints = list_checkpoints(run) if resume else []
    return checkpoints[-1] if checkpoints else None


def from_the_main(accelerator: Accelerator, find: Callable[[], Path | None]) -> Path | None:
    """Call `find` in the main process and return its result in every process."""
    found = [find() if accelerator.is_main_process else None]
    return broadcast_object_list(found)[0]


@contextmanager
def told_once(accelerator: Accelerator) -> Iterator[None]:
    """Show warnings about the data only in the main process."""
    with warnings.catch_warnings():
        if not accelerator.is_main_process:
            warnings.simplefilter("ignore", AttnVizWarning)
        yield


def open_scenes(
    data: DataConfig, esc10: str | os.PathLike[str], cache: Path
) -> tuple[SceneStore, SceneStore | None]:
    """Return the training scenes, and the validation scenes or None.

    Raises
    ------
    AudioError, OutputError, TrainingError
        See `SceneStore.open`.
    """
    composer = data.composition()
    scenes = SceneStore.open(cache, esc10, folds=data.folds, count=data.scenes, seed=data.seed, composer=composer)
    if not data.validation_folds:
        return scenes, None
    held_out = SceneStore.open(
        cache,
        esc10,
        folds=data.validation_folds,
        count=data.validation_scenes,
        seed=data.seed + _VALIDATION_SEED,
        composer=composer,
    )
    return scenes, held_out
