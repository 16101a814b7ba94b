"""Draw the same random numbers for a source and its edit, whatever in a pipeline draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from attnviz.capture.kernel import drop_taps, tap_depth
from attnviz.errors import AttnVizError

_ROWS = 2


@contextmanager
def shared_noise(generator: torch.Generator | None = None, *, rows: int = _ROWS) -> Iterator[None]:
    """Draw random numbers once for both rows of a batch, in this thread.

    Normal noise for a batch is drawn for one row and repeated, and codes are sampled with the same random numbers
    in both halves of the batch. What is drawn for the source is what a generation of the source alone draws.

    Parameters
    ----------
    generator : torch.Generator, optional
        Draws what the pipeline draws without a generator of its own. None: torch's global one.
    rows : int
        Rows of the batch whose noise the pipeline asks for: 2, or 1 where its code makes one.

    Notes
    -----
    Sampling a category with shared random numbers is the Gumbel-max coupling: torch takes the largest of
    ``probability / exponential noise``. Equal probabilities give equal codes, and codes differ only where the edit
    changed the odds. Source: Oberst & Sontag, Counterfactual Off-Policy Evaluation with Gumbel-Max Structural
    Causal Models (arXiv 1905.05824).
    """
    depth = tap_depth()
    try:
        with _SharedNoise(generator, rows):
            yield
    finally:
        drop_taps(depth)


class _SharedNoise(TorchFunctionMode):
    def __init__(self, generator: torch.Generator | None, rows: int) -> None:
        super().__init__()
        self._generator, self._rows = generator, rows

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept a torch function."""
        given = kwargs or {}
        if func is torch.randn:
            size = _size(args, given)
            if size and size[0] == self._rows:
                return self._normal(size, {name: value for name, value in given.items() if name != "size"})
        elif func is torch.randn_like and args[0].ndim and len(args[0]) == self._rows:
            like = {"dtype": args[0].dtype, "device": args[0].device, **given}
            return self._normal(
                args[0].shape, {name: one for name, one in like.items() if name != "memory_format"}
            )
        elif func in (torch.multinomial, torch.Tensor.multinomial):
            return self._codes(*args, **given)
        return func(*args, **given)

    def _normal(self, size: Sequence[int], given: dict[str, Any]) -> torch.Tensor:
        device = given.pop("device", None)
        generator = given.pop("generator", None)
        generator = self._generator if generator is None else generator
        on = device if generator is None else generator.device
        drawn = torch.randn((1, *size[1:]), generator=generator, device=on, **given)
        return drawn.to(on if device is None else device).expand(_ROWS, *size[1:]).clone()

    def _codes(
        self,
        probabilities: torch.Tensor,
        num_samples: int,
        replacement: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if num_samples != 1 or probabilities.ndim != 2 or len(probabilities) % _ROWS:
            raise AttnVizError(
                f"The model draws {num_samples} codes from probabilities of shape {tuple(probabilities.shape)}. "
                "An edit draws one at a time, for source and edit in one batch."
            )
        generator = self._generator if generator is None else generator
        half = probabilities[: len(probabilities) // _ROWS]
        on = half.device if generator is None else generator.device
        noise = torch.empty(half.shape, dtype=half.dtype, device=on).exponential_(1, generator=generator)
        return (probabilities / noise.to(half.device).repeat(_ROWS, 1)).argmax(dim=-1, keepdim=True)


def _size(args: tuple[Any, ...], given: dict[str, Any]) -> tuple[int, ...]:
    size = given.get("size", args)
    if len(size) == 1 and isinstance(size[0], Sequence):
        size = size[0]
    return tuple(int(each) for each in size)
