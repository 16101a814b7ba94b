"""The folder of a corpus: what belongs to which plan, which shards are done, and who may write."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attnviz.arguments import whole_number
from attnviz.corpus import clips as clip_files
from attnviz.corpus.arrays import ActivationStore, checksum
from attnviz.corpus.digests import FORMAT, described, digest_of
from attnviz.corpus.plan import Plan, without_none
from attnviz.corpus.reading import read_shard
from attnviz.errors import AttnVizError, CorpusError, OutputError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.settings import read_settings
from attnviz.io.storage import make_parents, write_whole

PLAN, CLIPS, AUDIO, ARRAYS = "corpus.json", "clips.parquet", "audio.json", "activations.zarr"
LOCK, OWNER = "run.lock", "run.json"
_KIND = "attnviz corpus"
_DIGITS = 6


@dataclass(frozen=True)
class CorpusFolder:
    """A corpus on disk.

    Attributes
    ----------
    path : pathlib.Path
    digest : str
        Digest of its plan.
    plan : Plan
    n_clips : int
    slots : int
        Phrases per clip in the stored activations.
    description : mapping
        What the digest is of.
    """

    path: Path
    digest: str
    plan: Plan
    n_clips: int
    slots: int
    description: Mapping[str, Any]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_clips // self.plan.clips_per_shard)

    @property
    def clips_path(self) -> Path:
        """Table of the clips."""
        return self.path / CLIPS

    @cached_property
    def activations(self) -> ActivationStore | None:
        """Stored activations, or None if the plan keeps none."""
        if not self.plan.keep.activations:
            return None
        return ActivationStore(
            self.path / "activations.zarr",
            self.n_clips,
            self.plan.clips_per_shard,
            self.slots,
            self.plan.keep.columns,
        )

    def shard_path(self, shard: int) -> Path:
        """Path of the table of a shard."""
        return self.path / "shards" / f"{shard:0{_DIGITS}d}.parquet"

    def sample_path(self, index: int) -> Path:
        """Folder of a clip whose maps are kept."""
        return self.path / "samples" / f"{index:0{_DIGITS + 2}d}"

    def files_path(self, index: int) -> Path:
        """Folder of the further files of a clip."""
        return self.path / "files" / f"{index:0{_DIGITS + 2}d}"

    def log_path(self, shard: int) -> Path:
        """Path of the costs of a shard, which are no results."""
        return self.path / "log" / f"{shard:0{_DIGITS}d}.json"

    def shard_metadata(self, shard: int) -> dict[str, str]:
        """Return the metadata of a finished shard.

        Raises
        ------
        CorpusError
            If it is damaged, or of another plan or version.
        """
        path = self.shard_path(shard)
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException) as damage:
            raise CorpusError(
                f"shard {path} is damaged: {str(damage).splitlines()[0].rstrip('.')}. Remove it, and run the plan "
                "again: only this shard is computed."
            ) from damage
        found = {key.decode(): value.decode() for key, value in metadata.items()}
        version, digest = found.get("attnviz.format"), found.get("attnviz.digest")
        if version != str(FORMAT):
            raise CorpusError(
                f"shard {path} has format version {version}; this attnviz reads version {FORMAT}. Was it written "
                "by another version? Remove it to compute it again."
            )
        if digest != self.digest:
            raise CorpusError(
                f"shard {path} belongs to the plan {str(digest)[:12]}, and the corpus to {self.digest[:12]}. Was "
                "it copied from another corpus?"
            )
        if (own := found.get("attnviz.shard")) != str(shard):
            raise CorpusError(
                f"shard {path} is the table of shard {own}. Was it copied or renamed? Remove it, and run the plan "
                "again: only this shard is computed."
            )
        return found

    def columns(self, shard: int) -> list[str]:
        """Return the names of the columns of a finished shard.

        Raises
        ------
        CorpusError
            See `shard_metadata`.
        """
        self.shard_metadata(shard)
        return list(pq.read_schema(self.shard_path(shard)).names)

    def table(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns of the table of a finished shard.

        Raises
        ------
        CorpusError
            If a column is unknown, or the table is damaged, of another plan or shard, or has lost or doubled rows.
        """
        rows = self.shard_metadata(shard).get("attnviz.rows")
        path = self.shard_path(shard)
        wanted = None if columns is None else list(dict.fromkeys([*columns, "index", "phrase"]))
        table = read_shard(path, wanted)
        first = shard * self.plan.clips_per_shard
        clips = range(first, min(first + self.plan.clips_per_shard, self.n_clips))
        keys = pa.table({name: table[name] for name in ("index", "phrase")})
        there = pc.unique(keys["index"]).to_pylist()
        doubled = len(keys) - len(keys.group_by(["index", "phrase"]).aggregate([]))
        if str(len(keys)) != rows or doubled or sorted(there) != list(clips):
            raise CorpusError(
                f"shard {path} has {len(keys)} rows ({doubled} of them twice) of {len(there)} clips; {rows} rows "
                f"of clips {clips.start} to {clips.stop - 1} were written. Remove it, and run the plan again: "
                "only this shard is computed."
            )
        return table if columns is None else table.select(list(columns))

    def arrays(self, shard: int) -> dict[str, np.ndarray]:
        """Read the activations of a finished shard; none if the plan keeps none.

        Raises
        ------
        CorpusError
            If they are missing, damaged, or differ from their checksum.
        """
        metadata, store = self.shard_metadata(shard), self.activations
        if store is None:
            return {}
        found = {}
        for name, expected in json.loads(metadata.get("attnviz.arrays", "{}")).items():
            found[name] = store.read_region(name, shard * self.plan.clips_per_shard)
            if checksum(found[name]) != expected:
                raise CorpusError(
                    f"{name} of shard {shard} in {store.path} differs from its checksum: a lost or altered file. "
                    f"Remove {self.shard_path(shard)}, and run the plan again: only this one is computed."
                )
        return found

    def done(self) -> list[int]:
        """Return the numbers of finished shards, ascending.

        Raises
        ------
        CorpusError
            See `shard_metadata`.
        """
        there = [shard for shard in range(self.n_shards) if self.shard_path(shard).exists()]
        for shard in there:
            self.shard_metadata(shard)
        return there

    def missing(self) -> list[int]:
        """Return the numbers of shards to compute, ascending."""
        done = set(self.done())
        return [shard for shard in range(self.n_shards) if shard not in done]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other coordinators out of a folder until the block ends, or the process dies.

    Raises
    ------
    CorpusError
        If another process holds it.
    """
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as held:  # an OSError, too
        raise CorpusError(
            f"{path} is being run{_who(path / OWNER)}. Wait for that run, or stop it; what it finished is kept."
        ) from held
    except OSError as error:
        raise OutputError(f"Cannot write {path / LOCK}: {error.strerror or error}.") from error
    try:
        record = {"kind": _KIND, "pid": os.getpid(), "host": platform.node()}
        write_whole(path / OWNER, as_json(record, OWNER))
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Prepared:
    """A plan with its clips read and its digest computed, before anything is written."""

    plan: Plan
    clips: list[clip_files.PlannedClip]
    description: dict[str, Any]
    path: Path

    @contextlib.contextmanager
    def held(self) -> Iterator[CorpusFolder]:
        """Create the folder, or open the one that was begun, and keep other coordinators out.

        Raises
        ------
        CorpusError
            If the folder has another plan, or something else, or another process runs it.
        OutputError
            If it cannot be written.
        """
        path = self.path
        if path.exists() and not (path / PLAN).exists():
            names = {one.name for one in path.iterdir()} if path.is_dir() else {path.name}
            # A run that ended before corpus.json was written has left the record of its process.
            strange = sorted(name for name in names - {LOCK} if not name.startswith("."))
            if strange and not _was_run(path / OWNER):
                raise CorpusError(
                    f"{path} exists and is no corpus (it has {strange[0]!r}), so nothing is written there. Give "
                    "another folder."
                )
        make_parents(path / LOCK)
        with locked(path):
            yield self._opened() if (path / PLAN).exists() else self._created()

    def _opened(self) -> CorpusFolder:
        there, digest = open_folder(self.path), digest_of(self.description)
        if there.digest != digest:
            found = _differences(there.description, self.description)
            if "clips_digest" in found:
                found[found.index("clips_digest")] = self._changed_clip(there)
            raise CorpusError(
                f"{self.path} holds the corpus of another plan ({there.digest[:12]}, not {digest[:12]}): they "
                f"differ in {', '.join(found)}. Give another folder, or run the plan that it was begun with."
            )
        plan = replace(there.plan, folder=self.plan.folder, clips=self.plan.clips)
        if plan != there.plan:  # its files were moved: workers read from the folder where they are
            there = replace(there, plan=plan)
            self._write_plan(there)
        return there

    def _changed_clip(self, there: CorpusFolder) -> str:
        """Say in what the clips of two plans differ first."""
        before = clip_files.read_clips(there.clips_path)
        for old, new in zip(before, self.clips, strict=False):
            if changed := [one.name for one in fields(old) if getattr(old, one.name) != getattr(new, one.name)]:
                names = {"sha256": "the content of its audio"}
                return f"clip {new.clip!r} ({', '.join(names.get(name, name) for name in changed)})"
        return f"the number of clips ({len(before)}, now {len(self.clips)})"

    def _created(self) -> CorpusFolder:
        plan, path = self.plan, self.path
        digest, slots = digest_of(self.description), clip_files.slots(self.clips)
        found = CorpusFolder(path, digest, plan, len(self.clips), slots, self.description)
        try:
            for name in ("shards", "log"):
                (path / name).mkdir(exist_ok=True)
            clip_files.write_clips(self.clips, path / CLIPS, plan.clips_per_shard)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror or error}. Is the disk full?") from error
        if plan.clips.audio is not None:
            folder = plan.path(plan.clips.audio)
            stats = {clip.clip: [*clip_files.stat_of(folder / clip.clip), clip.sha256] for clip in self.clips}
            write_whole(path / AUDIO, as_json(stats, AUDIO, indent=None))
        if found.activations is not None:
            found.activations.create()
        self._write_plan(found)  # last, because it marks the folder as a corpus
        return found

    def _write_plan(self, found: CorpusFolder) -> None:
        plan = found.plan
        content = {"kind": _KIND, "digest": found.digest, "clips": found.n_clips, "slots": found.slots}
        paths = {"folder": plan.folder, "clips": without_none(vars(plan.clips))}
        whole = {**content, **found.description, "paths": paths}
        write_whole(found.path / PLAN, as_json(whole, PLAN, error=CorpusError))


def prepare(plan: Plan, path: Path | None) -> Prepared:
    """Read the clips of a plan and compute its digest.

    Parameters
    ----------
    plan : Plan
    path : pathlib.Path or None
        By default, a folder named by the plan's digest, beside the plan.

    Raises
    ------
    CorpusError
        If clips, audio, events or model are missing.
    """
    listed = clip_files.planned_clips(plan, {} if path is None else _known_audio(path))
    description = described(plan, listed)
    if path is None:
        path = Path(plan.folder) / f"corpus-{digest_of(description)[:12]}"
    return Prepared(plan, listed, description, path)


def open_folder(path: Path) -> CorpusFolder:
    """Open the folder of a corpus.

    Raises
    ------
    CorpusError
        If it is none, damaged, or of another version.
    """
    if not (path / PLAN).is_file():
        state = "there is no corpus.json in it" if path.is_dir() else "there is no such folder"
        raise CorpusError(f"{path} is not a corpus: {state}. Corpora are written by attnviz corpus run.")
    content = read_json(path / PLAN, error=CorpusError)
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise CorpusError(f"{path / PLAN} was not written by attnviz corpus run.")
    if content.get("format") != FORMAT:
        raise CorpusError(
            f"{path} has format version {content.get('format')!r}; this attnviz reads version {FORMAT}. Was it "
            "written by another version? Run its plan again in a new folder."
        )
    try:
        plan = read_settings(Plan, {**content["plan"], **content["paths"]}, "", error=CorpusError)
        description = {name: content[name] for name in ("format", "plan", "model", "clips_digest", "versions")}
        clips, slots = (whole_number(name, content[name], most=2**62) for name in ("clips", "slots"))
        return CorpusFolder(path, str(content["digest"]), plan, clips, slots, description)
    except (AttnVizError, KeyError, TypeError, ValueError) as damage:
        raise CorpusError(f"{path / PLAN} is damaged: {damage}.") from damage


def _known_audio(path: Path) -> dict[str, tuple[int, int, str]]:
    if not (path / AUDIO).is_file():
        return {}
    content = read_json(path / AUDIO, error=CorpusError)
    return {name: (int(size), int(changed), str(digest)) for name, (size, changed, digest) in content.items()}


def _differences(first: Any, second: Any, name: str = "") -> list[str]:
    """Return the names of settings that differ."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return [] if first == second else [name]
    names = dict.fromkeys([*first, *second])
    return [
        found
        for key in names
        for found in _differences(first.get(key), second.get(key), f"{name}.{key}".removeprefix("."))
    ]


def _was_run(path: Path) -> bool:
    """Return whether a file is the record that a run of a corpus leaves."""
    try:
        content = read_json(path)
    except AttnVizError:
        return False
    return isinstance(content, dict) and content.get("kind") == _KIND


def _who(path: Path) -> str:
    try:
        content = read_json(path)
    except AttnVizError:
        return " by another process"
    return f" by process {content.get('pid')} on {content.get('host')}"
