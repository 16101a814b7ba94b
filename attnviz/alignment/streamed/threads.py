"""Run compiled code on the caller's number of threads, and leave that number as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch


@contextmanager
def callers_threads() -> Iterator[None]:
    """Give numba the threads of PyTorch, and restore the number of both.

    At its first parallel call, numba sets the number of threads of the OpenMP library that PyTorch shares: a
    process limited to one thread computes on all processors from then on, and competes with other such processes.
    """
    threads, own = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(own)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
