"""Tap the attention kernel: read the arguments and the output of one module's calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnviz.errors import CaptureError

KERNEL = functional.scaled_dot_product_attention
_PRODUCTS = {torch.bmm, torch.matmul, torch.Tensor.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__}
_CHECKED_QUERIES = 64
# The exponential of float32 kernels is an approximation; errors of a few 1e-6 of the values were measured.
_KERNEL_ARITHMETIC = 2e-5


@dataclass(frozen=True)
class KernelCall:
    """Final queries, keys and values of one call, after projection, normalization, rotation and adapters.

    Attributes
    ----------
    query : torch.Tensor, shape (rows, heads, n, width)
    key, value : torch.Tensor, shape (rows, heads, keys, width)
        With as many heads as the queries. Values are None where a processor multiplies with them itself.
    scale : float
        Factor on ``query key^T``.
    bias : torch.Tensor, float32, shape (rows or 1, heads or 1, n or 1, keys), or None
        Attention mask, added to the scaled scores.
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
            If attention dropout is on, or the queries do not have the shape (rows, heads, n, width).
        """
        if dropout_p:
            raise CaptureError(
                f"{path} applies attention dropout (p = {dropout_p:g}), so its probabilities differ from those "
                "that act. Call eval() of the model before tracing."
            )
        if query.ndim != 4:
            raise CaptureError(
                f"{path} calls the attention kernel with queries of shape {tuple(query.shape)}; expected (rows, "
                "heads, positions, width), without which rows and heads cannot be told apart."
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

    def columns(self, positions: slice) -> KernelCall:
        """Return some of the query positions."""
        bias = self.bias if self.bias is None or self.bias.shape[2] == 1 else self.bias[:, :, positions]
        return KernelCall(self.query[:, :, positions], self.key, self.value, self.scale, bias)

    def rows(self, rows: slice | list[int]) -> KernelCall:
        """Return the same call for some rows of the batch."""
        bias = self.bias if self.bias is None or len(self.bias) == 1 else self.bias[rows]
        value = None if self.value is None else self.value[rows]
        return KernelCall(self.query[rows], self.key[rows], value, self.scale, bias)


class KernelTap(TorchFunctionMode):
    """Route the kernel calls of one thread to a function while the tap is on.

    Parameters
    ----------
    answer : callable
        Receives the arguments of each call and returns its output.
    multiplied : callable
        Receives the first operand of each matrix product.
    """

    def __init__(self, answer: Callable[..., torch.Tensor], multiplied: Callable[[Any], None]) -> None:
        super().__init__()
        self._answer = answer
        self._multiplied = multiplied

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept a torch function."""
        if func is KERNEL:
            return self._answer(*args, **(kwargs or {}))
        if func in _PRODUCTS and args:
            self._multiplied(args[0])
        return func(*args, **(kwargs or {}))


def tap_depth() -> int:
    """Return the depth of this thread's stack of modes."""
    return int(torch._C._len_torch_function_stack())


def drop_taps(depth: int) -> None:
    """Pop every mode above a depth of this thread's stack: taps that an interrupt left on."""
    while tap_depth() > depth:
        torch.overrides._pop_mode()


def as_bias(mask: torch.Tensor) -> torch.Tensor:
    """Convert an attention mask, additive or boolean (True takes part), to a 4-D float32 bias."""
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
    while mask.ndim < 4:
        mask = mask[None]
    return mask.detach().float()


def check_probabilities(
    path: str, call: KernelCall, output: torch.Tensor, value: torch.Tensor | None, remedy: str
) -> None:
    """Compare a kernel's output with softmax(q k^T x scale + bias) at some of the queries.

    Parameters
    ----------
    path : str
        Path of the module, for the message.
    call : KernelCall
        Arguments of the kernel.
    output : torch.Tensor, shape (rows, heads, n, width or keys)
        Output of the kernel.
    value : torch.Tensor, shape (rows, heads, keys, width), or None
        None if `output` holds the probabilities themselves.
    remedy : str
        What to do, for the message.

    Raises
    ------
    CaptureError
        If they differ by more than the rounding of `output`'s dtype explains. A score's rounding error is
        relative to the score, and changes its probability by the same amount.
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
            f"{path} does not attend by softmax(query key^T x scale + mask): its output differs by "
            f"{difference:.3g}, and rounding explains {allowed:.3g}. Does another tool change the probabilities "
            f"or replace the kernel? {remedy}"
        )


def _rounding(output: torch.Tensor) -> float:
    if output.is_cuda and output.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return 2.0**-10
    return torch.finfo(output.dtype).eps
