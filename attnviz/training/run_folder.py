"""The folder of a run: begun, recognised, and made ready to be gone on with."""

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
    """Refuse a folder, before the long work begins; nothing is written.

    Raises
    ------
    OutputError
        The folder exists and neither `resume` nor `overwrite` is set, or is none of a run, or cannot be written.
    TrainingError
        Both are set, or the run to go on with is of another configuration.
    """
    if resume and overwrite:
        raise TrainingError("a run is either resumed or overwritten, not both; leave one of them out.")
    if resume and is_run(run):
        check_same_config(run, config)
    elif resume and run.exists() and why_not_ours(run, TRAINING) is not None:
        raise OutputError(f"{run} exists and holds no training to go on with. Is the path right?")
    elif is_run(run) and not overwrite:
        raise OutputError(f"{run} holds a training already; resume it, overwrite it, or give another path.")
    else:
        check_free(run, overwrite=overwrite, kind=TRAINING)


def begin_run(run: Path, config: TrainingConfig, *, overwrite: bool) -> None:
    """Make the folder of a new run.

    Raises
    ------
    OutputError
        It cannot be written, or is there and must not be replaced.
    """
    with whole_folder(run, overwrite=overwrite, kind=TRAINING) as temporary:
        write_config(temporary, config)


def tidy_run(run: Path, step: int) -> None:
    """Remove what was written after `step`, and what a killed process left half-written."""
    for path in (run / "samples").glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and int(number) > step and why_not_ours(path, SAMPLES) is None:
            remove(path)
    for leftover in find_leftovers(run):
        if leftover.dead:
            clear(leftover)


def check_same_config(run: Path, config: TrainingConfig) -> None:
    """Refuse to go on with a run of another configuration.

    Raises
    ------
    TrainingError
        Naming the settings that differ.
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
            f"{run} is of another configuration: {changed}. Give that configuration again, or train into "
            "another folder."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which entries of nested mappings differ and how, by dotted names; nothing where none do."""
    was, is_now = _flat(before), _flat(now)
    names = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
    return "; ".join(f"{name} was {_told(was, name)} and is {_told(is_now, name)}" for name in names)


def write_config(folder: Path, config: TrainingConfig) -> None:
    """Write a configuration into a folder."""
    (folder / CONFIG_NAME).write_bytes(as_json(config.to_dict(), CONFIG_NAME))


def is_run(folder: Path) -> bool:
    """Say whether a folder is a run's: its ``config.json`` is a training's, and not, say, a model's."""
    try:
        content = read_json(folder / CONFIG_NAME)
    except AttnVizError:
        return False
    return isinstance(content, dict) and content.get("part") in PARTS and "steps" in content


def _is_in_run(folder: Path) -> bool:
    return any(is_run(run) for run in (folder.parent, folder.parent.parent))


_ANYTHING = r"(?s:.*)"  # in folders of trainings that were begun before these held attnviz.json

MODEL, SAMPLES = (Kind(name, signed=_is_in_run, names=_ANYTHING) for name in ("model", "samples"))
"""The folders in a training that are written again where it is resumed from an earlier step."""

CHECKPOINT = Kind(
    "training checkpoint", signed=is_run, names=r"config\.json|state\.json|state\.safetensors", manifest=False
)
TRAINING = Kind(
    "training",
    signed=is_run,
    names=rf"config\.json|metrics\.csv|(model|samples/step-\d+)/{_ANYTHING}|checkpoints/step-\d+/({CHECKPOINT.names})",
    manifest=False,
)
"""A training's run: ``config.json`` says whose it is, and its files have fixed names."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _told(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not set"
