"""Save, find and load the state of a training. Each checkpoint is written completely or not at all.

Tensors are stored as safetensors and everything else as JSON, so loading a checkpoint runs no code from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from attnviz.errors import TrainingError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.leftovers import remove, temporary_path
from attnviz.io.storage import whole_folder
from attnviz.training.config import TrainingConfig
from attnviz.training.run_folder import CHECKPOINT, CONFIG_NAME, differences, write_config
from attnviz.training.state import TrainingState

_TENSORS, _NUMBERS = "state.safetensors", "state.json"
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError),
    *(TrainingError, SafetensorError),
)
_NAME = re.compile(r"step-(\d{7,})")


def save_checkpoint(
    run: Path, step: int, state: TrainingState, config: TrainingConfig, circumstances: Mapping[str, Any]
) -> None:
    """Write the state after `step` steps, and remove the oldest checkpoints beyond the number to keep.

    All processes call this function together; the main process writes.

    Parameters
    ----------
    run : pathlib.Path
        Run folder.
    step : int
        Number of completed steps.
    state : TrainingState
        State after these steps.
    config : TrainingConfig
        Configuration of the training.
    circumstances : mapping
        Further JSON-serialisable conditions that must be identical when the training is resumed.

    Raises
    ------
    OutputError
        If the checkpoint cannot be written, for example on a full disk. Earlier checkpoints are kept.
    """
    numbers = state.numbers()
    if state.accelerator.is_main_process:
        target = run / "checkpoints" / f"step-{step:07d}"
        with whole_folder(target, overwrite=True, kind=CHECKPOINT) as temporary:
            safetensors.torch.save_file(state.tensors(), temporary / _TENSORS)
            _write_json(temporary / _NUMBERS, {"circumstances": circumstances, "state": numbers})
            write_config(temporary, config)
        for old in list_checkpoints(run)[: -config.keep_checkpoints]:
            # Rename first, so that the rest of an interrupted removal is not mistaken for a checkpoint.
            remove(old.rename(temporary_path(old, "removed")))
    state.accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, state: TrainingState, circumstances: Mapping[str, Any]) -> int:
    """Load a checkpoint into `state` and return its step.

    Raises
    ------
    TrainingError
        If the checkpoint is damaged, belongs to other modules, or was saved under different circumstances.
    """
    try:
        content = read_json(folder / _NUMBERS, error=TrainingError)
        changed = differences(content["circumstances"], circumstances)
        tensors = safetensors.torch.load_file(folder / _TENSORS)
        if not changed:
            state.restore(tensors, content["state"])
    except _DAMAGE as error:
        others = [path.name for path in list_checkpoints(folder.parent.parent) if path != folder]
        then = f"resume then continues from {others[-1]}" if others else "resume then starts from the beginning"
        raise TrainingError(
            f"the checkpoint {folder} is damaged or of another version ({_first_line(error)}). "
            f"Remove that folder; {then}."
        ) from error
    if changed:
        raise TrainingError(
            f"the training in {folder} cannot be resumed, because its conditions have changed: {changed}. Restore "
            "them, or train into another folder."
        )
    return step_of(folder)


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(filter(_is_checkpoint, found), key=step_of)


def step_of(folder: Path) -> int:
    """Return the number of steps after which a checkpoint was saved."""
    return int(folder.name.split("-")[1])


def how_to_go_on(run: Path) -> str:
    """Describe how to resume a training that stopped."""
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return f"No checkpoint has been saved in {run} yet."
    return f"The last checkpoint is at step {step_of(checkpoints[-1])}; resume {run} to continue from there."


def _is_checkpoint(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_bytes(as_json(content, path.name))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
