"""Compute many rows in batches that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from attnviz.errors import MemoryBudgetError

_logger = logging.getLogger(__name__)
_SAID = ("can't allocate memory", "not enough memory", "out of memory")


def in_batches(compute: Callable[[slice], torch.Tensor], count: int, size: int) -> torch.Tensor:
    """Compute rows in batches, and concatenate the results.

    A batch that does not fit into memory is halved and computed again, until one row is left.

    Parameters
    ----------
    compute : callable
        Maps a slice of the rows to a tensor with as many rows.
    count : int
        Number of rows.
    size : int
        Rows of the first batches.

    Raises
    ------
    MemoryBudgetError
        If a single row does not fit.
    """
    found: list[torch.Tensor] = []
    first = 0
    while first < count:
        last = min(first + size, count)
        try:
            found.append(compute(slice(first, last)))
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if last - first == 1:
                raise MemoryBudgetError(
                    f"A single row of the batch does not fit into memory: {error}. Use fewer draws, or another "
                    "method."
                ) from error
            size = (last - first) // 2
            _logger.info("%d rows do not fit into memory; going on with %d", last - first, size)
            continue
        first = last
    return torch.cat(found)


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(each in str(error).lower() for each in _SAID)
