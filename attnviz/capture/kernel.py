"""The attention kernel, seen from outside: what one module calls it with, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnviz.errors import CaptureError

KERNEL = functional.scaled_dot_product_attention
_PRODUCTS = (torch.bmm, torch.matmul, torch.Tensor.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__)
_CHECKED_QUERIES = 64
# Of kernels in float32, whose exponential is an approximation: a few 1e-6 of the values are seen.
_KERNEL_ARITHMETIC = 2e-5


@dataclass(frozen=True)
class KernelCall:
    """Final queries, keys and values of one call: what was projected, normalised, rotated and adapted before.

    Attributes
    ----------
    query : torch.Tensor, shape (rows, heads, n, width)
    key, value : torch.Tensor, shape (rows, heads, keys, width)
        Of as many heads as the queries. Values are None where a processor computes its own product with them.
    scale : float
        Factor on ``query key^T``.
    bias : torch.Tensor, float32, shape (rows or 1, heads or 1, n or 1, keys), or None
        The attention mask as it is added to the scaled scores.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor | None
    scale: float
    bias: torch.Tensor | None

    @classmethod
    def of(
        cls,
        path: str,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> KernelCall:
        """Read the arguments of ``scaled_dot_product_attention``.

        Raises
        ------
        CaptureError
            If attention is dropped out at random, or queries are not of (rows, heads, n, width).
        """
        if dropout_p:
            raise CaptureError(
                f"{path} drops attention out at random (p = {dropout_p:g}), so its probabilities are not what "
                "acts. Call unet.eval() before tracing."
            )
        if query.ndim != 4:
            raise CaptureError(
                f"{path} calls the attention kernel with queries of shape {tuple(query.shape)}; (rows, heads, "
                "positions, width) is expected, so which row and head each is, is not known."
            )
        if enable_gqa and key.shape[1] != query.shape[1]:
            groups = query.shape[1] // key.shape[1]
            key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        bias = None if attn_mask is None else as_bias(attn_mask)
        if is_causal:
            ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
            bias = as_bias(ones.tril())
        factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
        return cls(query.detach(), key.detach(), value.detach(), factor, bias)

    def rows(self, rows: slice) -> KernelCall:
        """Some rows of the batch."""
        bias = self.bias if self.bias is None or len(self.bias) == 1 else self.bias[rows]
        value = None if self.value is None else self.value[rows]
        return KernelCall(self.query[rows], self.key[rows], value, self.scale, bias)


class KernelTap(TorchFunctionMode):
    """Has kernel calls of one thread answered by a function, for as long as the tap is on.

    Parameters
    ----------
    answer : callable
        Gets the arguments of each call, and gives its output.
    multiplied : callable
        Told the first operand of each product of matrices.
    """

    def __init__(self, answer: Callable[..., torch.Tensor], multiplied: Callable[[Any], None]) -> None:
        super().__init__()
        self._answer = answer
        self._multiplied = multiplied

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Stand in for a function of torch."""
        if func is KERNEL:
            return self._answer(*args, **(kwargs or {}))
        if func in _PRODUCTS and args:
            self._multiplied(args[0])
        return func(*args, **(kwargs or {}))


def tap_depth() -> int:
    """Depth of this thread's stack of modes."""
    return int(torch._C._len_torch_function_stack())


def drop_taps(depth: int) -> None:
    """Take off what is above a depth of this thread's stack of modes: a tap that an interrupt left on."""
    while tap_depth() > depth:
        torch.overrides._pop_mode()


def as_bias(mask: torch.Tensor) -> torch.Tensor:
    """An attention mask, additive or boolean (True takes part), as a float32 bias of four axes."""
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
    while mask.ndim < 4:
        mask = mask[None]
    return mask.detach().float()


def check_probabilities(path: str, call: KernelCall, output: torch.Tensor, value: torch.Tensor | None) -> None:
    """Compare what was computed with what softmax(q k^T x scale + bias) says, at some of the queries.

    Parameters
    ----------
    path : str
        The module, for the message.
    call : KernelCall
        What the kernel was called with.
    output : torch.Tensor, shape (rows, heads, n, width or keys)
        What it gave.
    value : torch.Tensor, shape (rows, heads, keys, width), or None
        None: `output` holds the probabilities themselves.

    Raises
    ------
    CaptureError
        If they differ beyond the rounding of `output`'s type. Rounding of a score is relative to the score, and
        moves its probability as much.
    """
    step = max(1, call.query.shape[2] // _CHECKED_QUERIES)
    scores = call.query[:, :, ::step].float() @ (call.key.float() * call.scale).transpose(-1, -2)
    largest = scores.abs().amax()
    bias = call.bias
    if bias is not None:
        scores = scores + (bias if bias.shape[2] == 1 else bias[:, :, ::step])
        largest = torch.maximum(largest, bias.where(bias > -1e4, 0.0).abs().amax())
    expected = scores.softmax(dim=-1)
    if bias is not None:
        expected = expected.masked_fill(torch.isneginf(scores).all(dim=-1, keepdim=True), 0.0)
    if value is not None:
        expected = expected @ value.float()
    size = 1.0 if value is None else value.float().abs().amax()
    difference = float((expected - output[:, :, ::step].float()).abs().amax())
    allowed = float((8 * _rounding(output) + _KERNEL_ARITHMETIC) * (1 + largest) * size)
    if difference > allowed:
        raise CaptureError(
            f"{path} does not attend by softmax(query key^T x scale + mask): its output is {difference:.3g} off, "
            f"and rounding explains {allowed:.3g}. Does another tool change the probabilities, or replace the "
            "kernel? Call unet.set_default_attn_processor() to trace the model's own attention."
        )


def _rounding(output: torch.Tensor) -> float:
    if output.is_cuda and output.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return 2.0**-10
    return torch.finfo(output.dtype).eps
