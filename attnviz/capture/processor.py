"""Our attention processor: it stands in diffusers' slot, holds the one that was there, and passes for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Run = Callable[..., torch.Tensor]
"""Called with the processor that was there and with what diffusers passes it; gives the module's output."""


class TracingProcessor:
    """An attention processor that has another one called, and looks like it from everywhere else.

    Its class, attributes, methods and the signature of ``__call__``, by which diffusers chooses the arguments it
    passes on, are those of the processor it holds. So a processor with weights of its own (an IP-Adapter's) is
    moved, saved, rescaled and listed as before.

    Parameters
    ----------
    inner : object
        The processor that was there.
    run : callable
        Gets `inner`, and the arguments of each call.

    Attributes
    ----------
    inner : object
        The processor that was there.
    """

    def __init__(self, inner: Any, run: Run) -> None:
        called = functools.wraps(inner.__call__)(functools.partial(run, inner))
        vars(self).update({"inner": inner, "_run": run, "__call__": called})

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute a module's output."""
        own = vars(self)
        return own["_run"](own["inner"], *args, **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The held processor's class, for ``isinstance``; ``type`` tells the truth."""
        return type(vars(self)["inner"])

    def __getattr__(self, name: str) -> Any:
        """Look up what is not here in the processor that is held."""
        return getattr(vars(self)["inner"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set attributes of the processor that is held."""
        setattr(vars(self)["inner"], name, value)

    def __repr__(self) -> str:
        """Name both."""
        return f"{TracingProcessor.__name__}({vars(self)['inner']!r})"


def held_processor(processor: Any) -> Any:
    """Give the processor that one of ours holds, and anything else as it is."""
    return processor.inner if type(processor) is TracingProcessor else processor


def is_traced(module: nn.Module) -> bool:
    """Whether an attention processor of ours is in some module's slot."""
    return any(type(getattr(each, "processor", None)) is TracingProcessor for each in module.modules())
