"""Arrays of Slurm jobs, submitted by submitit; results are read from the files of shards, never from the jobs."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnviz.corpus.folder import CorpusFolder
from attnviz.corpus.shards import ShardWorker
from attnviz.errors import CorpusError

MOST_JOBS = 1000
"""Jobs of an array; Slurm's default limit (MaxArraySize) is 1001."""

_POLL_SECONDS = 2.0


def check_submitit() -> None:
    """Raise if submitit is not installed.

    Raises
    ------
    CorpusError
        With the command that installs it.
    """
    if importlib.util.find_spec("submitit") is None:
        raise CorpusError("executor='slurm' needs submitit, which is not installed: pip install submitit.")


def run_slurm(
    place: CorpusFolder,
    shards: Sequence[int],
    *,
    workers: int,
    gpus: float,
    parameters: Mapping[str, Any],
    finished: Callable[[int], object],
) -> None:
    """Compute shards in arrays of Slurm jobs, and wait for them.

    Each of `workers` jobs loads the model once and computes its part of the shards. A job that fails or is
    preempted leaves its finished shards; a rerun computes the others.

    Parameters
    ----------
    place : CorpusFolder
        On a file system that all nodes share.
    shards : sequence of int
    workers : int
        Number of jobs, which may run at the same time.
    gpus : float
        GPUs of each job, a whole number.
    parameters : mapping
        Parameters of `submitit.AutoExecutor.update_parameters`, such as ``slurm_partition`` and ``timeout_min``;
        ``cluster`` is "slurm" by default, or "local" or "debug" to test without Slurm.
    finished : callable
        Called with each shard when its file is there.

    Raises
    ------
    CorpusError
        If a parameter is unknown, or there is no Slurm.
    """
    import submitit

    if gpus != int(gpus):
        raise CorpusError(f"gpus is {gpus:g}; Slurm gives whole GPUs to a job.")
    settings = dict(parameters)
    cluster = str(settings.pop("cluster", "slurm"))
    try:
        executor = submitit.AutoExecutor(folder=place.path / "log" / "slurm", cluster=cluster)
        executor.update_parameters(
            name=f"attnviz-{place.digest[:12]}", cpus_per_task=place.plan.threads, tasks_per_node=1,
            **({"gpus_per_node": int(gpus)} if gpus else {}), **settings,
        )  # fmt: skip
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise CorpusError(f"submitit cannot use Slurm: {str(error).splitlines()[0]}") from error
    parts = [list(shards[start::workers]) for start in range(min(workers, len(shards)))]
    jobs: list[Any] = []
    for start in range(0, len(parts), MOST_JOBS):
        array = parts[start : start + MOST_JOBS]
        jobs += executor.map_array(compute, [str(place.path)] * len(array), array)
    left = set(shards)
    while left:
        ended = all(job.done() for job in jobs)
        for shard in sorted(left):
            if place.shard_path(shard).exists():
                left.remove(shard)
                finished(shard)
        if ended or not left:
            return
        time.sleep(_POLL_SECONDS)


def compute(path: str, shards: Sequence[int]) -> int:
    """Compute shards one after the other, in a job; return their number, which nobody reads."""
    worker = ShardWorker(Path(path))
    for shard in shards:
        worker.run(shard)
    return len(shards)
