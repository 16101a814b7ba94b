"""Actors of Ray: each loads the model once; Ray restarts an actor that died and gives it its shard again."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnviz.corpus.shards import ShardWorker
from attnviz.errors import CorpusError

RETRIES = 5
"""Times that a shard is given to a restarted actor."""


def check_ray() -> None:
    """Raise if Ray is not installed.

    Raises
    ------
    CorpusError
        With the command that installs it.
    """
    if importlib.util.find_spec("ray") is None:
        raise CorpusError("executor='ray' needs Ray, which is not installed: pip install ray.")


def run_ray(
    path: Path,
    shards: Sequence[int],
    *,
    workers: int,
    threads: int,
    gpus: float,
    finished: Callable[[int], object],
) -> None:
    """Compute shards with actors of the running Ray cluster, or of a new one on this machine.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the corpus, on a file system that all nodes share.
    shards : sequence of int
    workers, threads : int
        Number of actors, and CPUs of each.
    gpus : float
        GPUs of each actor.
    finished : callable
        Called with each shard when it is finished.

    Raises
    ------
    CorpusError
        If an actor died more than `RETRIES` times at one shard.
    AttnVizError
        If the model cannot be loaded, or a shard cannot be written.
    """
    import ray
    from ray.exceptions import RayActorError
    from ray.util import ActorPool

    begun = not ray.is_initialized()
    if begun:
        ray.init(num_cpus=_local_cpus(workers * threads), log_to_driver=False, include_dashboard=False)
    try:
        # Ray sets OMP_NUM_THREADS to an actor's CPUs, which are the plan's threads, as those of other executors.
        options: dict[str, Any] = {"num_cpus": threads, "num_gpus": gpus}
        actor = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **options)(ShardWorker)
        actors = [actor.remote(Path(path)) for _ in range(min(workers, len(shards)))]
        pool = ActorPool(actors)
        for shard in shards:
            pool.submit(lambda one, number: one.run.remote(number), shard)
        while pool.has_next():
            try:
                finished(pool.get_next_unordered())
            except RayActorError as death:
                raise CorpusError(
                    f"An actor of Ray died more than {RETRIES} times at one shard: {str(death).splitlines()[0]} "
                    "Is its memory too small? What is finished is kept."
                ) from death
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
    finally:
        if begun:
            ray.shutdown()


def _local_cpus(wanted: int) -> int | None:
    """Return the CPUs of a new cluster on this machine; None (Ray's count) to join the one of ``RAY_ADDRESS``."""
    return None if os.environ.get("RAY_ADDRESS") else wanted
