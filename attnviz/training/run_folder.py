"""Create, recognise and clean up the run folder of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnviz.errors import AttnVizError, OutputError, TrainingError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.leftovers import clear, find_leftovers, remove
from attnviz.io.ownership import Kind, why_not_ours
from attnviz.io.storage import check_free, whole_folder
from attnviz.training.config import FREE, PARTS, TrainingConfig

CONFIG_NAME = "config.json"


def check_run(run: Path, config: TrainingConfig, *, resume: bool, overwrite: bool) -> None:
    """Check the run folder before the training starts; nothing is written.

    Raises
    ------
    OutputError
        If the folder exists and neither `resume` nor `overwrite` is set, is not a run folder, or cannot be
        written.
    TrainingError
        If both are set, or the run to resume has another configuration.
    """
    if resume and overwrite:
        raise TrainingError("resume and overwrite exclude each other; give only one of them.")
    if resume and is_run(run):
        check_same_config(run, config)
    elif resume and run.exists() and why_not_ours(run, TRAINING) is not None:
        raise OutputError(f"{run} exists but contains no training to resume. Is the path correct?")
    elif is_run(run) and not overwrite:
        raise OutputError(f"{run} already contains a training; resume it, overwrite it, or give another path.")
    else:
        check_free(run, overwrite=overwrite, kind=TRAINING)


def begin_run(run: Path, config: TrainingConfig, *, overwrite: bool) -> None:
    """Create the folder of a new run.

    Raises
    ------
    OutputError
        If it cannot be written, or exists and must not be replaced.
    """
    with whole_folder(run, overwrite=overwrite, kind=TRAINING) as temporary:
        write_config(temporary, config)


def tidy_run(run: Path, step: int) -> None:
    """Remove output written after `step` and partial files left by a killed process."""
    for path in (run / "samples").glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and int(number) > step and why_not_ours(path, SAMPLES) is None:
            remove(path)
    for leftover in find_leftovers(run):
        if leftover.dead:
            clear(leftover)


def check_same_config(run: Path, config: TrainingConfig) -> None:
    """Check that a run has the given configuration before it is resumed.

    Raises
    ------
    TrainingError
        If it differs. The message names the settings that differ.
    """
    path = run / CONFIG_NAME
    try:
        before = TrainingConfig.from_dict(read_json(path, error=TrainingError)).to_dict()
    except TrainingError as error:
        raise TrainingError(f"the configuration {path} cannot be read: {error}") from error
    now = config.to_dict()
    changed = differences(
        *({name: item for name, item in side.items() if name not in FREE} for side in (before, now))
    )
    if changed:
        raise TrainingError(
            f"{run} has a different configuration: {changed}. Give the same configuration, or train into another "
            "folder."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the differences of nested mappings by dotted names; empty if there are none."""
    was, is_now = _flat(before), _flat(now)
    names = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
    return "; ".join(f"{name} was {_told(was, name)} and is {_told(is_now, name)}" for name in names)


def write_config(folder: Path, config: TrainingConfig) -> None:
    """Write a configuration to a folder."""
    (folder / CONFIG_NAME).write_bytes(as_json(config.to_dict(), CONFIG_NAME))


def is_run(folder: Path) -> bool:
    """Return whether a folder has the ``config.json`` of a training (and not, for example, of a model)."""
    try:
        content = read_json(folder / CONFIG_NAME)
    except AttnVizError:
        return False
    return isinstance(content, dict) and content.get("part") in PARTS and "steps" in content


def _is_in_run(folder: Path) -> bool:
    return any(is_run(run) for run in (folder.parent, folder.parent.parent))


_ANYTHING = r"(?s:.*)"  # for trainings started before folders contained attnviz.json

MODEL, SAMPLES = (Kind(name, signed=_is_in_run, names=_ANYTHING) for name in ("model", "samples"))
"""Folders of a training that are written again if it is resumed from an earlier step."""

CHECKPOINT = Kind(
    "training checkpoint", signed=is_run, names=r"config\.json|state\.json|state\.safetensors", manifest=False
)
TRAINING = Kind(
    "training",
    signed=is_run,
    names=rf"config\.json|metrics\.csv|(model|samples/step-\d+)/{_ANYTHING}|checkpoints/step-\d+/({CHECKPOINT.names})",
    manifest=False,
)
"""The run folder of a training, identified by its ``config.json``; its files have fixed names."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _told(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not set"
