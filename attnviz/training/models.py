"""Models from the settings of a configuration: fresh, or read from a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from attnviz import bundled
from attnviz.errors import TrainingError
from attnviz.pipelines.parts import read_model
from attnviz.training.settings import refuse_unknown

# What diffusers' constructors raise, who check few of their arguments: an empty list of channels is an
# IndexError, no groups to normalise a ZeroDivisionError.
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
    """Return the folder a part goes on from; None where it is to be a new one.

    Parameters
    ----------
    settings : mapping
        Settings of the part; ``{"pretrained": FOLDER}``, or ``{"pretrained": "bundled"}``, for one to go on from.
    shipped : str
        Name of the part's folder in the model that ships.

    Raises
    ------
    TrainingError
        The folder is no text, or more is given beside it.
    """
    if "pretrained" not in settings:
        return None
    if len(settings) > 1:
        others = sorted(set(settings) - {"pretrained"})
        raise TrainingError(f"model.pretrained brings its own settings; remove {', '.join(others)}.")
    folder = settings["pretrained"]
    if not isinstance(folder, str):
        raise TrainingError(f"model.pretrained is {folder!r}; the path of a folder is needed.")
    return bundled.FOLDER / shipped if folder == bundled.NAME else Path(folder).expanduser()


def make_model(kind: Any, settings: Mapping[str, Any], shipped: str) -> Any:
    """Return a diffusers model.

    Parameters
    ----------
    kind : type
        Its class.
    settings : mapping
        Arguments of the class, or ``{"pretrained": FOLDER}``: a folder that `save_pretrained` wrote.
    shipped : str
        As for `pretrained_folder`.

    Raises
    ------
    TrainingError
        Settings the class does not have, or that contradict each other.
    CheckpointError
        The folder holds no such model.
    """
    folder = pretrained_folder(settings, shipped)
    if folder is not None:
        return read_model(kind, folder, torch.float32)
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    refuse_unknown(settings, known, "model.")
    try:
        return kind(**settings)
    except _CONTRADICTIONS as error:
        raise TrainingError(f"[model]: {kind.__name__} cannot be made of these settings: {error!r}.") from error


def make_scheduler(known: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return a diffusers scheduler.

    Parameters
    ----------
    known : mapping
        Settings it has anyway, ``_class_name`` among them; those that another class does not have are left out.
    settings : mapping
        What is to be otherwise: arguments, and ``class``, the name of another scheduler.

    Raises
    ------
    TrainingError
        A class that diffusers does not have, settings the class does not have, or that contradict each other.
    """
    name = settings.get("class", known["_class_name"])
    kind: Any = getattr(diffusers, str(name), None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.SchedulerMixin):
        raise TrainingError(
            f"model.scheduler.class is {name!r}; the name of a diffusers scheduler, such as 'DDIMScheduler', is "
            "needed."
        )
    taken = list(inspect.signature(kind).parameters)
    changed = {argument: value for argument, value in settings.items() if argument != "class"}
    refuse_unknown(changed, taken, "model.scheduler.")
    kept = {argument: value for argument, value in known.items() if argument in taken}
    try:
        return kind(**kept | changed)
    except _CONTRADICTIONS as error:
        raise TrainingError(f"[model.scheduler]: {name} cannot be made of these settings: {error!r}.") from error
