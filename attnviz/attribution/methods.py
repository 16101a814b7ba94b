"""The methods of attribution by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from attnviz.attribution.ablation import LeaveOneOut, Shapley
from attnviz.attribution.attention_gradient import Gradient
from attnviz.attribution.gradients import GradientShap, IntegratedGradients
from attnviz.attribution.heard import HeardWord
from attnviz.attribution.method import Attribution
from attnviz.attribution.recorded import Attention, Rollout, Value
from attnviz.errors import CaptureError

METHODS: dict[str, type[Attribution]] = {
    method.name: method
    for method in (
        Attention,
        Value,
        Rollout,
        Gradient,
        IntegratedGradients,
        GradientShap,
        LeaveOneOut,
        Shapley,
        HeardWord,
    )
}
"""Classes by the name that `attnviz.explain` takes."""


def method_of(method: str | Attribution, pipe: Any, settings: Mapping[str, Any]) -> Attribution:
    """Return a method of attribution for a pipeline.

    Parameters
    ----------
    method : str or Attribution
        A name, or a method that was made with its settings.
    pipe : object
        The pipeline.
    settings : mapping
        Settings of the method, by name.

    Raises
    ------
    CaptureError
        If the method or one of its settings is unknown, or a method that was made has another pipeline.
    """
    if isinstance(method, Attribution):
        if settings:
            raise CaptureError(
                f"{', '.join(settings)} belong to the method; give them to {type(method).__name__}."
            )
        if method.pipe is not pipe:
            raise CaptureError(
                f"{type(method).__name__} was made with another pipeline than the one to explain with."
            )
        return method
    kind = METHODS.get(method) if isinstance(method, str) else None
    if kind is None:
        raise CaptureError(f"method={method!r} is unknown; known methods: {', '.join(METHODS)}.")
    known = [field.name for field in dataclasses.fields(kind) if field.name != "pipe"]
    if unknown := [name for name in settings if name not in known]:
        raise CaptureError(
            f"{unknown[0]} is no setting of explain or of method={method!r}, "
            + (f"whose own are {', '.join(known)}." if known else "which has none of its own.")
        )
    return kind(pipe, **settings)
