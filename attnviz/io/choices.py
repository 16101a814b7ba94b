"""Checks of names and paths that need no library, so that a command can make them before slow imports."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path

from attnviz.errors import AttnVizError, AudioError, CaptureError, CheckpointError, PromptError
from attnviz.io.paths import FilePath, checked_path

PRECISIONS = ("float32", "bfloat16", "float16")
AXES = ("step", "head")
METHODS = (
    "attention", "value", "rollout", "gradient", "integrated_gradients", "gradient_shap", "leave_one_out",
    "shapley", "heard",
)  # fmt: skip
RECORDED = METHODS[:3]
"""Methods that run along with a generation."""
_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w.-]+")


def check_precision(precision: str) -> None:
    """Raise if a precision is unknown.

    Raises
    ------
    AttnVizError
        With the known precisions.
    """
    if precision not in PRECISIONS:
        raise AttnVizError(f"precision {precision!r} is unknown; known: {', '.join(PRECISIONS)}.")


def check_method(method: str, known: Collection[str] = METHODS) -> None:
    """Raise if a method of attribution is unknown.

    Raises
    ------
    CaptureError
        With the known methods.
    """
    if method not in known:
        if method in METHODS:
            raise CaptureError(
                f"method {method!r} needs a recording: use attnviz explain. A generation takes {', '.join(known)}."
            )
        raise CaptureError(f"method {method!r} is unknown. Known: {', '.join(known)}.")


def check_axes(keep: Collection[str]) -> None:
    """Raise if an axis other than step and head is to be kept.

    Raises
    ------
    CaptureError
        With the two axes.
    """
    if unknown := sorted(set(keep) - set(AXES)):
        raise CaptureError(f"keep={', '.join(unknown)} is not an axis of the maps; keep step, head, or both.")


def check_seconds(duration: float | None) -> None:
    """Raise if a duration is not a number of seconds above 0; what a model can make is checked with the model.

    Raises
    ------
    AudioError
        With the duration.
    """
    if duration is not None and not 0 < duration < math.inf:
        raise AudioError(f"duration={duration:g}: it must be a number of seconds above 0.")


def check_given(prompt: str) -> None:
    """Raise if a prompt is empty.

    Raises
    ------
    PromptError
        With the prompt.
    """
    if not prompt.strip():
        raise PromptError(f"The prompt {prompt!r} is empty; a few words are expected, for example 'a dog barks'.")


def check_model(model: FilePath) -> None:
    """Raise if a checkpoint is neither a folder that exists nor the name of a repository of the hub.

    Raises
    ------
    CheckpointError
        With the name.
    """
    if not checked_path(model, "model", CheckpointError).is_dir() and not _HUB_NAME.fullmatch(str(model)):
        raise CheckpointError(
            f"There is no folder '{model}', and it is not the name of a hub repository ('owner/name')."
        )


def check_exists(path: FilePath, what: str, error: type[AttnVizError] = AttnVizError) -> None:
    """Raise if an input file or folder does not exist, or a folder is given as a file.

    Raises
    ------
    AttnVizError
        Of the given type, with `what` and the path.
    """
    place = checked_path(path, what, error)
    if not place.exists():
        raise error(f"{what} {path} does not exist. Is the path relative to another folder?")
    if place.is_dir() and "file" in what and "folder" not in what:
        inside = place / "audio.wav"
        hint = f"; the audio of this run is {inside}" if inside.is_file() else "; give a file in it"
        raise error(f"{what} {path} is a folder{hint}.")


def check_run(folder: Path) -> None:
    """Raise if a folder is not a run folder, by its ``run.json``.

    Raises
    ------
    AttnVizError
        With the folder, and what it lacks.
    """
    place = checked_path(folder, "the run folder")
    if not (place / "run.json").exists():
        state = "there is no run.json in it" if place.is_dir() else "there is no such folder"
        raise AttnVizError(
            f"{folder} is not a run folder: {state}. Run folders are written by attnviz generate, "
            "attnviz explain and attnviz edit with --out."
        )
