"""Local processes: the executor that needs nothing else."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path

from attnviz.corpus.shards import ShardWorker
from attnviz.errors import CorpusError

_logger = logging.getLogger(__name__)

MOST_DEATHS = 5
"""Times that workers may die, one after the other, without a shard being finished between."""

_WORKER: list[ShardWorker] = []  # of this process, a worker


def run_local(path: Path, shards: Sequence[int], *, workers: int, finished: Callable[[int], object]) -> None:
    """Compute shards in new processes, each with its own model.

    A worker that dies takes the pool with it (`concurrent.futures`); what was not finished goes to the next pool.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the corpus.
    shards : sequence of int
    workers : int
        Number of processes.
    finished : callable
        Called with each shard when it is finished.

    Raises
    ------
    CorpusError
        If workers die repeatedly without finishing anything.
    AttnVizError
        If the model cannot be loaded, or a shard cannot be written.
    """
    left, deaths = list(shards), 0
    while left:
        before = len(left)
        died = _run_pool(path, left, workers, finished)
        deaths = deaths + 1 if died and len(left) == before else int(died)
        if deaths >= MOST_DEATHS:
            raise CorpusError(
                f"Workers died {deaths} times in a row without finishing a shard; shards {left[:5]} are among the "
                f"{len(left)} left. Is the memory too small for {workers} workers? What is finished is kept."
            )


def _run_pool(path: Path, left: list[int], workers: int, finished: Callable[[int], object]) -> bool:
    """Run one pool, remove what it finished from `left`, and return whether a worker died."""
    with ProcessPoolExecutor(
        min(workers, len(left)), _context(), initializer=_begin, initargs=(str(path),)
    ) as pool:
        futures: dict[Future[int], int] = {}
        try:
            futures |= {pool.submit(_run, shard): shard for shard in left}
            for future in as_completed(futures):
                shard = future.result()
                left.remove(shard)
                finished(shard)
        except BrokenProcessPool:
            _logger.warning("a worker died; %d shards are left", len(left))
            return True
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return False


def _context() -> BaseContext:
    """Return how workers start: from a server that has imported what they need, or where there is none, anew.

    Neither inherits the threads or the CUDA state of the coordinator, and a dead worker is replaced at once.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["attnviz.corpus.shards", "attnviz.corpus.local"])
    return context


def _begin(path: str) -> None:
    threading.Thread(target=_end_with_coordinator, daemon=True).start()
    _WORKER.append(ShardWorker(Path(path)))


def _end_with_coordinator() -> None:
    """End this worker when the coordinator has died: the pool's queue would keep it waiting for ever."""
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        coordinator.join()
        os._exit(1)


def _run(shard: int) -> int:
    return _WORKER[0].run(shard)
