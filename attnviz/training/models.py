"""Create models and schedulers from configuration settings, or read them from a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from attnviz import bundled
from attnviz.errors import TrainingError
from attnviz.io.paths import checked_path
from attnviz.models.pipelines.parts import read_model
from attnviz.training.settings import refuse_unknown

# Exceptions of diffusers' constructors, which check few of their arguments: an empty list of channels raises an
# IndexError, zero normalisation groups a ZeroDivisionError.
_CONTRADICTIONS = (
    ValueError,
    TypeError,
    AssertionError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    AttributeError,
)


def pretrained_folder(settings: Mapping[str, Any], shipped: str) -> Path | None:
    """Return the folder of the pretrained part, or None for a new part.

    Parameters
    ----------
    settings : mapping
        Settings of the part; ``{"pretrained": FOLDER}`` or ``{"pretrained": "bundled"}`` for a pretrained one.
    shipped : str
        Folder name of the part in the shipped model.

    Raises
    ------
    TrainingError
        If the folder is not a string, or other settings are given with it.
    """
    if "pretrained" not in settings:
        return None
    if len(settings) > 1:
        others = sorted(set(settings) - {"pretrained"})
        raise TrainingError(f"model.pretrained defines all model settings; remove {', '.join(others)}.")
    folder = settings["pretrained"]
    if not isinstance(folder, str):
        raise TrainingError(f"model.pretrained is {folder!r}; give the path of a folder.")
    if folder == bundled.NAME:
        return bundled.FOLDER / shipped
    return checked_path(folder, "the folder of a model", TrainingError)


def make_model(kind: Any, settings: Mapping[str, Any], shipped: str) -> Any:
    """Create or read a diffusers model.

    Parameters
    ----------
    kind : type
        Model class.
    settings : mapping
        Arguments of the class, or ``{"pretrained": FOLDER}``: a folder written by `save_pretrained`.
    shipped : str
        See `pretrained_folder`.

    Raises
    ------
    TrainingError
        If the class does not have a setting, or settings contradict each other.
    CheckpointError
        If the folder does not contain such a model.
    """
    folder = pretrained_folder(settings, shipped)
    if folder is not None:
        return read_model(kind, folder, torch.float32)
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    refuse_unknown(settings, known, "model.")
    try:
        return kind(**settings)
    except _CONTRADICTIONS as error:
        raise TrainingError(f"[model]: cannot create {kind.__name__} from these settings: {error!r}.") from error


def make_scheduler(known: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Create a diffusers scheduler.

    Parameters
    ----------
    known : mapping
        Base settings, including ``_class_name``. Settings that the chosen class does not have are ignored.
    settings : mapping
        Changes: arguments, and ``class``, the name of another scheduler.

    Raises
    ------
    TrainingError
        If diffusers has no such class, the class does not have a setting, or settings contradict each other.
    """
    name = settings.get("class", known["_class_name"])
    kind: Any = getattr(diffusers, str(name), None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.SchedulerMixin):
        raise TrainingError(
            f"model.scheduler.class is {name!r}; give the name of a diffusers scheduler, such as 'DDIMScheduler'."
        )
    taken = list(inspect.signature(kind).parameters)
    changed = {argument: value for argument, value in settings.items() if argument != "class"}
    refuse_unknown(changed, taken, "model.scheduler.")
    kept = {argument: value for argument, value in known.items() if argument in taken}
    try:
        return kind(**kept | changed)
    except _CONTRADICTIONS as error:
        raise TrainingError(f"[model.scheduler]: cannot create {name} from these settings: {error!r}.") from error
