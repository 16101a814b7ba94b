"""Observe one attention module: the processor for its slot, and the kernel tap that is on while it runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor, IPAdapterAttnProcessor2_0
from torch import nn

from attnviz.capture.editing import EditedRow, edited_chunks, with_changes, with_sources
from attnviz.capture.kernel import (
    KERNEL,
    KernelCall,
    KernelTap,
    as_bias,
    check_probabilities,
    drop_taps,
    tap_depth,
)
from attnviz.capture.layers import AttentionLayer, remedy
from attnviz.capture.probabilities import HeadChunk, float32_arithmetic, head_chunks
from attnviz.capture.processor import TracingProcessor
from attnviz.errors import CaptureError

_TEXT_FIRST = (IPAdapterAttnProcessor, IPAdapterAttnProcessor2_0)
"""Processors that attend to the text first, and only then to something else."""


@dataclass(frozen=True)
class SeenAttention:
    """One forward pass of a module: its kernel calls and their edits.

    Attributes
    ----------
    call : KernelCall
        Arguments of the kernel, before edits.
    edited : sequence of EditedRow
        Rows of the batch that are edited.
    subtracted : KernelCall or None
        Second call of differential attention, whose probabilities are subtracted.
    output : torch.Tensor or None
        Output of the kernel, edits included, with its gradient graph; None of two calls, of some query positions,
        or where the processor multiplies with the values itself.
    """

    call: KernelCall
    edited: Sequence[EditedRow] = ()
    subtracted: KernelCall | None = None
    output: torch.Tensor | None = None

    def columns(self, positions: slice) -> SeenAttention:
        """Return some of the query positions."""
        if positions == slice(0, self.call.query.shape[2]):
            return self
        return SeenAttention(
            self.call.columns(positions),
            [replace(each, first=max(0, each.first - positions.start)) for each in self.edited],
            None if self.subtracted is None else self.subtracted.columns(positions),
        )

    def chunks(self, rows: slice) -> Iterator[HeadChunk]:
        """Yield the edited probabilities of some rows, a few heads at a time; `rows` includes all edited rows."""
        chunks = self._edited(self.call.rows(rows), rows.start or 0)
        if self.subtracted is None:
            return chunks
        others = self._edited(self.subtracted.rows(rows), rows.start or 0)
        return ((heads, one - other) for (heads, one), (_, other) in zip(chunks, others, strict=True))

    def _edited(self, call: KernelCall, first: int) -> Iterator[HeadChunk]:
        chunks = head_chunks(call.query, call.key, scale=call.scale, bias=call.bias)
        return edited_chunks(chunks, self.edited, first) if self.edited else chunks


class AttentionSite:
    """One attention module: the processor for its slot, and the kernel call of each forward pass.

    Parameters
    ----------
    layer : AttentionLayer
        The module, its path and its block.
    edits : callable
        Receives the number of query positions; returns the rows of the batch edited in the current pass.
    receive : callable or None
        Called once in each forward pass with the site and the attention. None records nothing.
    signs : tuple of int
        Sign of each kernel call of one forward pass: ``(1,)``, or ``(1, -1)`` for differential attention.

    Attributes
    ----------
    processor : TracingProcessor
        Processor for the module's slot. A module without a slot gets `forward` instead.
    has_slot : bool
        Whether the module has a slot for a processor.
    grid : tuple of int or None
        Rows and columns of the query positions, from the latest 4-D input of the enclosing block.

    Notes
    -----
    The original processor does all the work. Most processors call ``scaled_dot_product_attention``, which is
    tapped. The classic and the sliced processor call ``Attention.get_attention_scores`` for slices of rows and
    heads, and multiply the result with the values. The first pass checks the result against a recomputation.
    """

    def __init__(
        self,
        layer: AttentionLayer,
        edits: Callable[[int], Sequence[EditedRow]],
        receive: Callable[[AttentionSite, SeenAttention], None] | None,
        *,
        signs: tuple[int, ...] = (1,),
    ) -> None:
        self.layer = layer
        self.has_slot = has_slot = hasattr(layer.attention, "processor")
        self._compute: Any = layer.attention.processor if has_slot else layer.attention.forward
        self._by = type(self._compute if has_slot else layer.attention).__name__
        self._remedy = remedy(layer)
        self.processor = TracingProcessor(self._compute, self._run)
        self.grid: tuple[int, int] | None = None
        self._edits = edits
        self._receive = receive
        self._signs = signs
        self._projections = self._found_projections()
        # Of diffusers' `Attention`; later kinds of module have no such method, and call the kernel.
        self._own_scores: Any = getattr(layer.attention, "get_attention_scores", None)
        self._checked = False
        self._thread: int | None = None
        self._pending: torch.Tensor | None = None
        self._first: KernelCall | None = None
        self._begin(0)

    def before_block(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the grid, as a forward pre-hook of the enclosing transformer block."""
        hidden_states = args[0] if args else kwargs["hidden_states"]
        self.grid = (int(hidden_states.shape[-2]), int(hidden_states.shape[-1]))

    def scores(
        self, query: torch.Tensor, key: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Replace `get_attention_scores` of the module: probabilities (n, keys) of some rows and heads."""
        computed = self._own_scores(query, key, attention_mask)
        if self._thread != threading.get_ident():
            return computed
        if len(self._queries) >= self._rows * self.layer.heads:
            self._check_again()
            return computed
        self._check_used()
        self._queries += query.detach().unbind()
        self._keys += key.detach().unbind()
        self._masks += [None] * len(query) if attention_mask is None else attention_mask.detach().unbind()
        if not self._checked:
            with torch.no_grad(), float32_arithmetic(query.device.type):
                mask = None if attention_mask is None else as_bias(attention_mask)[0, :, None]
                call = KernelCall(query[:, None], key[:, None], None, float(self.layer.attention.scale), mask)
                check_probabilities(self.layer.path, call, computed[:, None], None, self._remedy)
        changed = self._edited_scores(computed)
        self._pending = changed
        return changed

    # Called by the tap and the tracing processor ----------------------------------------------------

    def _run(
        self, inner: Any, attention: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Compute the module's output with the original processor, and observe its attention."""
        return self._observed(
            functools.partial(inner, attention, hidden_states, *args, **kwargs), len(hidden_states)
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Replace ``forward`` of a module without a slot: compute its output, and observe its attention."""
        hidden_states = [*args, *kwargs.values()][0]
        return self._observed(functools.partial(self._compute, *args, **kwargs), len(hidden_states))

    @property
    def there(self) -> object:
        """What stands in the module in place of this site; None if the site itself does."""
        if self.has_slot:
            found = self.layer.attention.processor
            return None if found is self.processor else found
        found = vars(self.layer.attention).get("forward")
        return None if getattr(found, "__self__", None) is self else found or self.layer.attention

    def _observed(self, compute: Callable[[], Any], rows: int) -> Any:
        self._check_projections()
        self._begin(rows)
        depth = tap_depth()
        try:
            with KernelTap(self._kernel, self._multiplied):
                self._thread = threading.get_ident()
                output = compute()
                self._end()
            return output
        finally:
            self._thread = None
            drop_taps(depth)

    def _kernel(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the output of one kernel call, edits included."""
        self._calls += 1
        if self._calls > len(self._signs):
            self._check_again()
            return KERNEL(*args, **kwargs)
        given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        with torch.no_grad():
            call = KernelCall.of(self.layer.path, **given)
            edited = self._edits(call.query.shape[2])
            for name in ("query", "key", "attn_mask") if edited else ():
                if isinstance(given.get(name), torch.Tensor):
                    given[name] = with_sources(given[name], edited)
        output = KERNEL(**given) if edited else KERNEL(*args, **kwargs)
        with torch.no_grad(), float32_arithmetic(output.device.type):
            if not self._checked:
                acted = KernelCall.of(self.layer.path, **given)
                check_probabilities(self.layer.path, acted, output, acted.value, self._remedy)
                self._checked = self._calls == len(self._signs)
            output = with_changes(call, edited, output)
            if self._calls < len(self._signs):
                self._first = call
            elif self._first is None:
                self._see(SeenAttention(call, edited, output=output))
            else:
                self._see(SeenAttention(self._first, edited, call))
        return output

    def _multiplied(self, first: Any) -> None:
        if first is self._pending:
            self._pending = None

    # One forward pass ------------------------------------------------------------------------------

    def _begin(self, rows: int) -> None:
        self._rows = rows
        self._calls = 0
        self._first = None
        self._queries: list[torch.Tensor] = []
        self._keys: list[torch.Tensor] = []
        self._masks: list[torch.Tensor | None] = []
        self._pending = None

    def _end(self) -> None:
        heads = self.layer.heads
        if not self._calls and len(self._queries) != self._rows * heads:
            raise CaptureError(
                f"{self.layer.path} attended without torch's attention kernel, so its probabilities were not "
                f"seen: {self._by} uses another backend (eager, flash attention, xformers, flex). {self._remedy}"
                + (' If a backend was set, call its set_attention_backend("native").' if self.has_slot else "")
            )
        if 0 < self._calls < len(self._signs):
            raise CaptureError(
                f"{self.layer.path} called the attention kernel once in one pass where its family says "
                f"{len(self._signs)} times, so the sign of its map is not known."
            )
        self._check_used()
        if self._queries:
            self._checked = True
            with torch.no_grad(), float32_arithmetic(self._queries[0].device.type):
                query, key = (torch.stack(each).unflatten(0, (-1, heads)) for each in (self._queries, self._keys))
                masks = [mask for mask in self._masks if mask is not None]
                bias = torch.stack(masks).unflatten(0, (-1, heads)).float() if masks else None
                call = KernelCall(query, key, None, float(self.layer.attention.scale), bias)
                self._see(SeenAttention(call, self._edits(query.shape[2])))
        self._begin(0)  # release the tensors

    def _see(self, seen: SeenAttention) -> None:
        if self._receive is not None:
            self._receive(self, seen)

    def _edited_scores(self, computed: torch.Tensor) -> torch.Tensor:
        """Replace the probabilities of edited rows among the latest rows and heads."""
        edited = {each.row: each for each in self._edits(computed.shape[1])}
        if not edited:
            return computed
        heads, first = self.layer.heads, len(self._queries) - len(computed)
        changed = computed.clone()
        for place in range(len(computed)):
            row, head = divmod(first + place, heads)
            if row not in edited:
                continue
            source = edited[row].source * heads + head
            if source >= len(self._queries):
                raise CaptureError(
                    f"{self.layer.path} attends in slices, and row {row} takes the attention of row "
                    f"{edited[row].source}, which comes later. Call pipe.disable_attention_slicing()."
                )
            own = computed[place][None]
            changed[place] = edited[row].attention(self._probabilities(source)[None], own, range(head, head + 1))[
                0
            ]
        return changed

    def _probabilities(self, place: int) -> torch.Tensor:
        mask = self._masks[place]
        return self._own_scores(
            self._queries[place][None], self._keys[place][None], None if mask is None else mask[None]
        )[0]

    # Checks ------------------------------------------------------------------------------------------

    def _found_projections(self) -> list[nn.Module | None]:
        # Looked up where torch keeps submodules: `getattr` raises and catches an error for each that is absent.
        return [self.layer.attention._modules.get(name) for name in _PROJECTIONS]

    def _check_projections(self) -> None:
        if self._projections != self._found_projections():
            raise CaptureError(
                f"to_q or to_k of {self.layer.path} was replaced after trace() began (loading or unloading a LoRA "
                "does that). Load adapters before tracing."
            )

    def _check_again(self) -> None:
        if not isinstance(self._compute, _TEXT_FIRST):
            raise CaptureError(
                f"{self.layer.path} called the attention kernel more than once in one pass, so which call attends "
                f"to the text is not known. {self._by} is not supported. {self._remedy}"
            )

    def _check_used(self) -> None:
        """Raise if the returned probabilities were changed before the product with the values."""
        if self._pending is not None:
            raise CaptureError(
                f"{self.layer.path} does not multiply its values with the probabilities it computed: "
                f"{self._by} changes them. Remove other attention-control tools. {self._remedy}"
            )


def is_tapped(module: nn.Module) -> bool:
    """Whether the ``forward`` of a module is that of a site."""
    return isinstance(getattr(vars(module).get("forward"), "__self__", None), AttentionSite)


_PROJECTIONS = ("to_q", "to_k", "to_kv", "q_proj", "k_proj")
_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
