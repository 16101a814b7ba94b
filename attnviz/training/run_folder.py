"""The folder of a run: begun, recognised, and made ready to be gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnviz.errors import OutputError, TrainingError
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
    elif resume and run.exists() and not _replaceable(run):
        raise OutputError(f"{run} exists and holds no training to go on with. Is the path right?")
    elif is_run(run) and not overwrite:
        raise OutputError(f"{run} holds a training already; resume it, overwrite it, or give another path.")
    else:
        check_free(run, overwrite=overwrite, replaceable=_replaceable)


def begin_run(run: Path, config: TrainingConfig, *, overwrite: bool) -> None:
    """Make the folder of a new run.

    Raises
    ------
    OutputError
        It cannot be written, or is there and must not be replaced.
    """
    with whole_folder(run, overwrite=overwrite, replaceable=_replaceable) as temporary:
        write_config(temporary, config)


def tidy_run(run: Path, step: int) -> None:
    """Remove what was written after `step`, and what a killed process left half-written."""
    for path in (run / "samples").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path, ignore_errors=True)
    for folder in (run / "samples", run / "checkpoints"):
        for path in folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)


def check_same_config(run: Path, config: TrainingConfig) -> None:
    """Refuse to go on with a run of another configuration.

    Raises
    ------
    TrainingError
        Naming the settings that differ.
    """
    path = run / CONFIG_NAME
    try:
        before = TrainingConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))).to_dict()
    except (OSError, ValueError, TrainingError) as error:
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
    (folder / CONFIG_NAME).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def is_run(folder: Path) -> bool:
    """Say whether a folder is a run's: its ``config.json`` is a training's, and not, say, a model's."""
    try:
        content = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("part") in PARTS and "steps" in content


def _replaceable(folder: Path) -> bool:
    return is_run(folder) or (folder.is_dir() and not any(folder.iterdir()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _told(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not set"
