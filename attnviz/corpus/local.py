"""Local processes: the executor that needs nothing else."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
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

    Each worker is the only one of its pool. A pool whose worker dies then takes nothing else with it, and never
    starts a worker while it deals with a death: `concurrent.futures` waits for ever for that one.

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
    context = _context()
    waiting, deaths = deque(shards), 0
    idle: list[ProcessPoolExecutor] = []
    running: dict[Future[int], tuple[ProcessPoolExecutor, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                pool = idle.pop() if idle else ProcessPoolExecutor(1, context, _begin, (str(path),))
                shard = waiting.popleft()
                running[_submitted(pool, shard)] = pool, shard
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                pool, shard = running.pop(future)
                try:
                    future.result()
                except BrokenProcessPool:
                    deaths += 1
                    waiting.append(shard)
                    pool.shutdown(wait=False)
                    _logger.warning("a worker died; %d shards are left", len(waiting) + len(running))
                    if deaths >= MOST_DEATHS:
                        left = sorted([*waiting, *(one for _, one in running.values())])
                        raise CorpusError(_died(deaths, left, workers)) from None
                else:
                    deaths = 0
                    idle.append(pool)
                    finished(shard)
    except BaseException:
        for pool in (*idle, *(pool for pool, _ in running.values())):
            pool.shutdown(wait=False, cancel_futures=True)
        raise
    for pool in idle:
        pool.shutdown()


def _submitted(pool: ProcessPoolExecutor, shard: int) -> Future[int]:
    try:
        return pool.submit(_run, shard)
    except (BrokenProcessPool, BrokenPipeError, EOFError) as error:  # died while it started, or was idle
        future: Future[int] = Future()
        future.set_exception(BrokenProcessPool(str(error)))
        return future


def _died(deaths: int, left: list[int], workers: int) -> str:
    return (
        f"Workers died {deaths} times in a row without finishing a shard; shards {left[:5]} are among the "
        f"{len(left)} left. Is the memory too small for {workers} workers? What is finished is kept."
    )


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
