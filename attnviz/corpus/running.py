"""Run a plan: prepare its folder, and give the missing shards to an executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnviz.arguments import public, whole_number
from attnviz.corpus.corpus import Corpus, CorpusStatus
from attnviz.corpus.folder import CorpusFolder, prepare
from attnviz.corpus.local import run_local
from attnviz.corpus.plan import Plan, read_plan
from attnviz.errors import CorpusError
from attnviz.io.paths import FilePath, checked_path

Executor = Literal["local", "ray", "slurm"]
EXECUTORS: tuple[Executor, ...] = ("local", "ray", "slurm")
_MOST_WORKERS = 100_000


@dataclass(frozen=True)
class Workers:
    """How many workers there are, and what each gets.

    Attributes
    ----------
    number : int
    gpus : float
        GPUs of a worker, for Ray and Slurm.
    slurm : mapping
        Parameters of submitit's Slurm executor, such as ``slurm_partition`` or ``timeout_min``.
    """

    number: int = 1
    gpus: float = 0.0
    slurm: Mapping[str, Any] | None = None


@public
def run_corpus(
    plan: Plan | FilePath,
    folder: FilePath | None = None,
    *,
    executor: Executor = "local",
    workers: int = 1,
    gpus: float = 0.0,
    slurm: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> CorpusStatus:
    """Compute the shards of a plan that are missing.

    Parameters
    ----------
    plan : Plan or path-like
        A plan, or its TOML file.
    folder : path-like, optional
        Folder of the corpus, new or begun with the same plan. By default, it is beside the plan and named by the
        plan's digest.
    executor : {"local", "ray", "slurm"}
        Spawned processes of this machine, actors of Ray (``attnviz[ray]``) or arrays of Slurm
        (``attnviz[slurm]``). Results do not depend on it, nor on the number of workers.
    workers : int
        Number of workers. Each loads the model once.
    gpus : float
        GPUs of each worker, for Ray and Slurm.
    slurm : mapping, optional
        Parameters of submitit, such as ``{"slurm_partition": "gpu", "timeout_min": 60}``.
    retry_failed : bool
        Compute shards with failed clips again.
    progress : callable, optional
        Called with the number of finished shards and of all shards.

    Returns
    -------
    CorpusStatus
        What is done. Failed clips are no error; they are rows with a reason.

    Raises
    ------
    CorpusError
        If the plan is invalid, or the folder has another plan, is being run, or has damaged shards; if Ray or
        submitit is not installed; or if workers died too often.
    AttnVizError
        If the model cannot be loaded, or results cannot be written. Finished shards are kept.
    """
    settled = plan if isinstance(plan, Plan) else read_plan(plan)
    if executor not in EXECUTORS:
        raise CorpusError(f"executor={executor!r} is unknown; expected {', '.join(EXECUTORS)}.")
    if executor == "local" and (gpus or slurm):
        raise CorpusError(
            f"{'gpus' if gpus else 'slurm'} is for the executors ray and slurm; a local worker runs on "
            "model.device of the plan."
        )
    start = _executor(executor)
    wanted = Workers(whole_number("workers", workers, most=_MOST_WORKERS, error=CorpusError), float(gpus), slurm)
    prepared = prepare(settled, None if folder is None else checked_path(folder, "the corpus folder", CorpusError))
    with prepared.held() as place:
        if place.activations is not None:
            place.activations.clear_partial()
        if retry_failed:
            for shard in Corpus(place.path).status().shards_with_failures:
                place.shard_path(shard).unlink()
        missing = place.missing()
        done = place.n_shards - len(missing)

        def finished(shard: int) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, place.n_shards)

        if progress is not None:
            progress(done, place.n_shards)
        if missing:
            start(place, missing, wanted, finished)
    return Corpus(place.path).status()


Start = Callable[[CorpusFolder, list[int], Workers, Callable[[int], None]], None]


def _executor(name: Executor) -> Start:
    """Return the function that starts workers; raise if what it needs is not installed."""
    if name == "local":
        return _local
    if name == "ray":
        from attnviz.corpus.ray_actors import check_ray, run_ray

        check_ray()
        return lambda place, shards, workers, finished: run_ray(
            place.path, shards, workers=workers.number, threads=place.plan.threads, gpus=workers.gpus,
            finished=finished,
        )  # fmt: skip
    from attnviz.corpus.slurm_arrays import check_submitit, run_slurm

    check_submitit()
    return lambda place, shards, workers, finished: run_slurm(
        place, shards, workers=workers.number, gpus=workers.gpus, parameters=workers.slurm or {}, finished=finished
    )


def _local(place: CorpusFolder, shards: list[int], workers: Workers, finished: Callable[[int], None]) -> None:
    run_local(Path(place.path), shards, workers=workers.number, finished=finished)
