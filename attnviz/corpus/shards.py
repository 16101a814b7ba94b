"""Compute one shard: the work of a worker, whatever started it."""

from __future__ import annotations

import json
import logging
import os
import resource
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import threadpoolctl
import torch

from attnviz.audio import write_wav
from attnviz.corpus.arrays import checksum
from attnviz.corpus.clips import PlannedClip, read_clips
from attnviz.corpus.digests import FORMAT
from attnviz.corpus.folder import CorpusFolder, open_folder
from attnviz.corpus.results import ClipResult, Outcome, arrays_of, check_fit, check_result, table_of
from attnviz.corpus.tasks import Task, make_task
from attnviz.errors import AttnVizWarning
from attnviz.io.json_files import as_json
from attnviz.io.leftovers import remove
from attnviz.io.storage import make_parents, whole_or_nothing, write_whole

_logger = logging.getLogger(__name__)


class ShardWorker:
    """Computes shards of a corpus with a model that is loaded once.

    Parameters
    ----------
    path : pathlib.Path
        Folder of the corpus.
    """

    def __init__(self, path: Path) -> None:
        self.folder = open_folder(path)
        set_threads(self.folder.plan.threads)
        self._task: Task | None = None

    def load(self) -> None:
        """Load the model; otherwise, it is loaded at the first shard."""
        if self._task is None:
            self._task = make_task(self.folder.plan)

    def run(self, shard: int) -> int:
        """Compute a shard, unless it is finished, and return its number.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        folder = self.folder
        if folder.shard_path(shard).exists():
            return shard
        self.load()
        begun, cpu = time.perf_counter(), time.process_time()
        outcomes = [self._outcome(clip) for clip in read_clips(folder.clips_path, shard)]
        computed = time.perf_counter()
        _write(folder, shard, outcomes)
        costs = {
            "shard": shard, "clips": len(outcomes), "seconds": computed - begun,
            "write_seconds": time.perf_counter() - computed, "cpu_seconds": time.process_time() - cpu,
            "pid": os.getpid(), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }  # fmt: skip
        write_whole(folder.log_path(shard), as_json(costs, "the costs"))
        return shard

    def _outcome(self, clip: PlannedClip) -> Outcome:
        task, store = self._task, self.folder.activations
        result, reason = None, ""
        with _collected() as said:
            try:
                result = task(clip)  # type: ignore[misc]  # loaded by run
                check_result(result)
                if store is not None:
                    check_fit(result, store)
            except Exception as error:  # noqa: BLE001 (a task of one's own can raise anything; the others go on)
                _logger.info("clip %s failed: %s", clip.clip, error)
                reason = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
                result = None
        if result is None:  # of a shard that was not finished, nothing is left either
            for path in (self.folder.sample_path(clip.index), self.folder.files_path(clip.index)):
                remove(path)
            return Outcome(clip, None, reason, tuple(said))
        every = self.folder.plan.keep.sample_every
        if every and clip.index % every == 0:
            _write_sample(self.folder.sample_path(clip.index), result)
        if result.files:
            _write_files(self.folder.files_path(clip.index), result)
        # A shard of clips holds no maps: memory does not grow with its number of clips.
        return Outcome(clip, replace(result, maps=None, audio=None, files={}), "", tuple(said))


def set_threads(threads: int) -> None:
    """Set the number of threads of PyTorch and of libraries for linear algebra, in this process and its children.

    All executors do so: Ray, for example, sets ``OMP_NUM_THREADS`` to the CPUs of an actor.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def _write(folder: CorpusFolder, shard: int, outcomes: list[Outcome]) -> None:
    """Write the arrays, then the table, whose name marks the shard as finished."""
    table = table_of(outcomes)
    metadata = {"attnviz.format": str(FORMAT), "attnviz.digest": folder.digest}
    metadata |= {"attnviz.shard": str(shard), "attnviz.rows": str(len(table))}
    store = folder.activations
    if store is not None:
        arrays = arrays_of(outcomes, store)
        for name, values in arrays.items():
            store.write_region(name, shard * folder.plan.clips_per_shard, values)
        metadata["attnviz.arrays"] = json.dumps({name: checksum(values) for name, values in arrays.items()})
    with whole_or_nothing(folder.shard_path(shard), overwrite=True) as partial:
        pq.write_table(
            table.replace_schema_metadata(metadata), partial, compression="zstd", write_page_checksum=True
        )


def _write_sample(path: Path, result: ClipResult) -> None:
    """Write the maps and the audio of a clip."""
    with _clip_folder(path) as partial:
        if result.maps is not None:
            result.maps.save(partial / "maps.zarr")
        if result.audio is not None:
            write_wav(partial / "audio.wav", result.audio)


def _write_files(path: Path, result: ClipResult) -> None:
    """Write the further files of a clip."""
    with _clip_folder(path) as partial:
        for name, content in result.files.items():
            (partial / name).write_bytes(content)


@contextmanager
def _clip_folder(path: Path) -> Iterator[Path]:
    """Provide a folder of a clip, which replaces that of a shard that was not finished."""
    make_parents(path)
    with whole_or_nothing(path, overwrite=True, replaceable=Path.is_dir) as partial:
        partial.mkdir()
        yield partial


@contextmanager
def _collected() -> Iterator[list[str]]:
    """Collect the texts of attnviz's warnings."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AttnVizWarning)
        yield said
        said += [str(one.message) for one in caught]
