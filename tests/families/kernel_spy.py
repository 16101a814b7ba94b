"""See, and plant, what reaches the attention kernel of some modules, below whatever a trace puts around it.

A spy sits where the model's own processor or ``forward`` was, so that a trace calls it. Its mode is on top of the
trace's tap: it plants what the tap sees, and sees what the tap answers.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass
class Call:
    """One call of the kernel: float64 probabilities and values, and the output, each (rows, heads, ...)."""

    path: str
    probabilities: torch.Tensor
    values: torch.Tensor
    output: torch.Tensor


class _Mode(TorchFunctionMode):
    def __init__(self, path, seen, plant):
        super().__init__()
        self.path, self.seen, self.plant, self.number = path, seen, plant, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = dict(kwargs or {})
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **given)
        q, k, v = (
            args[i] if i < len(args) else given.pop(name) for i, name in enumerate(("query", "key", "value"))
        )
        mask, scale = given.get("attn_mask"), given.get("scale")
        if self.plant is not None:
            q, k, v = self.plant(q, k, v, self.number)
        self.number += 1
        output = func(q, k, v, *args[3:], **given)
        groups = q.shape[1] // k.shape[1]
        k, v = (each.double().repeat_interleave(groups, dim=1) for each in (k, v))
        scores = torch.einsum("rhqw,rhkw->rhqk", q.double(), k) * (scale or q.shape[-1] ** -0.5)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        elif given.get("is_causal"):
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        self.seen.append(Call(self.path, scores.softmax(-1).nan_to_num(0.0), v, output.detach().clone()))
        return output


class _Processor:
    def __init__(self, inner, mode):
        self.inner = inner

        @functools.wraps(inner.__call__)
        def call(*args, **kwargs):
            with mode():
                return inner(*args, **kwargs)

        self.__dict__["__call__"] = call

    def __call__(self, *args, **kwargs):
        return self.__dict__["__call__"](*args, **kwargs)


@contextmanager
def spied(modules, plant=None):
    """Yield the list of kernel calls that the given (path, module) pairs make; `plant` replaces q, k and v."""
    seen, undo = [], []
    for path, module in modules:
        mode = functools.partial(_Mode, path, seen, plant)
        if hasattr(module, "processor"):
            undo.append(functools.partial(setattr, module, "processor", module.processor))
            module.processor = _Processor(module.processor, mode)
        else:
            undo.append(functools.partial(delattr, module, "forward"))

            def forward(*args, own=module.forward, mode=mode, **kwargs):
                with mode():
                    return own(*args, **kwargs)

            module.forward = functools.wraps(module.forward)(forward)
    try:
        yield seen
    finally:
        for each in undo:
            each()
