"""The state of a training on disk: saved whole or not at all, found again, and checked before it is used.

Tensors are safetensors and everything else is JSON: reading a checkpoint runs nothing that is in it.
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
    """Write the whole state after `step` steps, and remove the oldest checkpoints beyond those to keep.

    All processes call this at once; the main one writes.

    Parameters
    ----------
    run : pathlib.Path
        The run's folder.
    step : int
        Steps that are done.
    state : TrainingState
        What they led to.
    config : TrainingConfig
        What was trained.
    circumstances : mapping
        What else must be the same where a training goes on; JSON can hold it.

    Raises
    ------
    OutputError
        It cannot be written, for example on a full disk. The checkpoints before it stay.
    """
    numbers = state.numbers()
    if state.accelerator.is_main_process:
        target = run / "checkpoints" / f"step-{step:07d}"
        with whole_folder(target, overwrite=True, kind=CHECKPOINT) as temporary:
            safetensors.torch.save_file(state.tensors(), temporary / _TENSORS)
            _write_json(temporary / _NUMBERS, {"circumstances": circumstances, "state": numbers})
            write_config(temporary, config)
        for old in list_checkpoints(run)[: -config.keep_checkpoints]:
            # Renamed first, so that what a kill leaves of it is not taken for a checkpoint.
            remove(old.rename(temporary_path(old, "removed")))
    state.accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, state: TrainingState, circumstances: Mapping[str, Any]) -> int:
    """Put a checkpoint's content into `state`; return its step.

    Raises
    ------
    TrainingError
        The checkpoint is damaged, or of other modules, or was made under other circumstances.
    """
    try:
        content = read_json(folder / _NUMBERS, error=TrainingError)
        changed = differences(content["circumstances"], circumstances)
        tensors = safetensors.torch.load_file(folder / _TENSORS)
        if not changed:
            state.restore(tensors, content["state"])
    except _DAMAGE as error:
        others = [path.name for path in list_checkpoints(folder.parent.parent) if path != folder]
        then = f"resume goes on from {others[-1]}" if others else "there is no other: resume begins anew"
        raise TrainingError(
            f"the checkpoint {folder} is damaged or of another version ({_first_line(error)}). "
            f"Remove that folder; {then}."
        ) from error
    if changed:
        raise TrainingError(
            f"{folder} cannot be gone on from as it was trained: {changed}. Give the same again, or train into "
            "another folder."
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
    """Say where a training that stopped can be gone on with."""
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return f"No checkpoint has been saved in {run} yet."
    return f"The last checkpoint is of step {step_of(checkpoints[-1])}; resume {run} to go on from there."


def _is_checkpoint(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_bytes(as_json(content, path.name))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
