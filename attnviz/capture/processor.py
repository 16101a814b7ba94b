"""An attention processor for diffusers' slot that wraps the original one and is indistinguishable from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from attnviz.arguments import public

Run = Callable[..., torch.Tensor]
"""Called with the original processor and diffusers' arguments; returns the module's output."""


class TracingProcessor:
    """An attention processor that wraps another one and mimics it.

    Class, attributes, methods and the signature of ``__call__``, from which diffusers chooses the arguments it
    passes, are those of the wrapped processor. A processor with weights (an IP-Adapter's) is therefore still
    moved, saved, rescaled and listed.

    Parameters
    ----------
    inner : object
        The original processor.
    run : callable
        Receives `inner` and the arguments of each call.

    Attributes
    ----------
    inner : object
        The original processor.
    """

    def __init__(self, inner: Any, run: Run) -> None:
        called = functools.wraps(inner.__call__)(functools.partial(run, inner))
        vars(self).update({"inner": inner, "_run": run, "__call__": called})

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the module's output."""
        own = vars(self)
        return own["_run"](own["inner"], *args, **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Return the wrapped processor's class, for ``isinstance``; ``type`` returns `TracingProcessor`."""
        return type(vars(self)["inner"])

    def __getattr__(self, name: str) -> Any:
        """Look up a missing attribute on the wrapped processor."""
        return getattr(vars(self)["inner"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the wrapped processor."""
        setattr(vars(self)["inner"], name, value)

    def __repr__(self) -> str:
        """Return the names of both processors."""
        return f"{TracingProcessor.__name__}({vars(self)['inner']!r})"


def held_processor(processor: Any) -> Any:
    """Unwrap a `TracingProcessor`; return any other processor unchanged."""
    return processor.inner if type(processor) is TracingProcessor else processor


@public
def is_traced(module: nn.Module) -> bool:
    """Whether a `TracingProcessor` is in the slot of some module."""
    return any(type(getattr(each, "processor", None)) is TracingProcessor for each in module.modules())
