"""`Corpus`: the results of a corpus run, opened lazily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xarray as xr

from attnviz.arguments import public
from attnviz.corpus.aligning import CorpusAlignment, align_corpus
from attnviz.corpus.clips import read_clips
from attnviz.corpus.folder import CorpusFolder, open_folder
from attnviz.corpus.plan import Plan
from attnviz.corpus.results import FAILED
from attnviz.errors import AttnVizError, CorpusError
from attnviz.io.json_files import read_json
from attnviz.io.paths import FilePath, checked_path
from attnviz.io.storage import whole_or_nothing
from attnviz.maps import AttentionMaps
from attnviz.wording import counted

_MOST_REASONS = 5


@dataclass(frozen=True)
class CorpusStatus:
    """How far a corpus is.

    Attributes
    ----------
    folder : str
    digest : str
    clips, shards : int
        Of the plan.
    clips_done, shards_done : int
        Finished; clips that failed are among them.
    clips_failed : int
    clips_warned : int
        Clips with warnings, such as audio that cannot be heard.
    reasons : dict of str to int
        Reasons of failed clips, each with the first of its clips, and their numbers.
    shards_with_failures : tuple of int
    seconds_per_clip : float
        Mean cost of a clip, without loading the model; NaN if unknown.
    bytes_per_clip : float
        Size of tables, activations and samples, by finished clip; NaN without one.
    """

    folder: str
    digest: str
    clips: int
    shards: int
    clips_done: int
    shards_done: int
    clips_failed: int
    clips_warned: int
    reasons: dict[str, int]
    shards_with_failures: tuple[int, ...]
    seconds_per_clip: float
    bytes_per_clip: float

    @property
    def complete(self) -> bool:
        """Whether every shard is finished."""
        return self.shards_done == self.shards

    def __str__(self) -> str:
        lines = [
            f"{self.folder} (plan {self.digest[:12]}): {self.clips_done} of {counted(self.clips, 'clip')} in "
            f"{self.shards_done} of {counted(self.shards, 'shard')}"
        ]
        if self.clips_failed:
            lines.append(f"{counted(self.clips_failed, 'clip')} failed:")
            shown = list(self.reasons.items())[:_MOST_REASONS]
            lines += [f"  {count} x {reason}" for reason, count in shown]
            if len(self.reasons) > _MOST_REASONS:
                lines.append(f"  and {len(self.reasons) - _MOST_REASONS} other reasons; see the column reason")
        if self.clips_warned:
            lines.append(f"{counted(self.clips_warned, 'clip')} with warnings; see the column warnings")
        if self.clips_done:
            lines.append(f"{self.seconds_per_clip:.3g} s and {self.bytes_per_clip / 1024:.3g} KiB per clip")
        return "\n".join(lines)


class Corpus:
    """The results of a corpus run.

    Nothing is read until it is asked for. `files` are Parquet files with one schema, which pandas, pyarrow and
    DuckDB read as one table; `activations` is one zarr array.

    Parameters
    ----------
    folder : path-like
        Folder of `attnviz corpus run`. It may be incomplete: what is finished is read.

    Raises
    ------
    CorpusError
        If the folder is no corpus, or of another version.
    """

    @public
    def __init__(self, folder: FilePath) -> None:
        self._folder: CorpusFolder = open_folder(checked_path(folder, "the corpus folder", CorpusError))

    @property
    def folder(self) -> Path:
        """Folder of the corpus."""
        return self._folder.path

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return self._folder.plan

    @property
    def digest(self) -> str:
        """Digest of its plan, 64 hexadecimal digits."""
        return self._folder.digest

    def __len__(self) -> int:
        return self._folder.n_clips

    def __repr__(self) -> str:
        return f"<Corpus {self.digest[:12]} of {counted(len(self), 'clip')} in {self.folder}>"

    @cached_property
    def _done(self) -> list[int]:
        return self._folder.done()

    @property
    def files(self) -> list[Path]:
        """Parquet files of the finished shards, in order."""
        return [self._folder.shard_path(shard) for shard in self._done]

    @property
    def clips(self) -> pd.DataFrame:
        """Clips of the plan: ``index``, ``clip``, ``caption``, ``seed``, ``sha256``, ``events``."""
        return pd.DataFrame([vars(clip) for clip in read_clips(self._folder.clips_path)])

    @public
    def table(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the table of all finished shards.

        Parameters
        ----------
        columns : sequence of str, optional
            Columns to read. By default, all.

        Returns
        -------
        pandas.DataFrame
            One row per phrase, and one row for a clip without phrases or that failed. ``index``, ``clip``,
            ``caption`` and ``seed`` are those of the plan; ``status`` is "done" or "failed", with its ``reason``;
            ``phrase`` is its number in the caption (-1 without one) and its place in `activations`; ``label``,
            ``start``, ``end``, ``source``, ``origin``, ``sound_class``, ``onsets`` and ``offsets`` are those of
            its events; then scores of the map (``roc_auc``, ...) and of the controls of one clip
            (``energy_roc_auc``, ...), see `Alignment.table`; NaN is undefined.

        Raises
        ------
        CorpusError
            If a column is unknown, or a shard is damaged or of another plan.
        """
        return self._table(self._done, columns).to_pandas()

    def _table(self, shards: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        if not shards:
            raise CorpusError(f"{self.folder} has no finished shard yet.")
        there = [self._folder.columns(shard) for shard in shards]
        known = dict.fromkeys(name for names in there for name in names)
        if unknown := sorted(set(columns or ()) - set(known)):
            raise CorpusError(
                f"the tables of {self.folder} have no column {unknown}; they have {', '.join(known)}."
            )
        # The facts of a task are no columns of a shard in which all clips failed.
        own = [None if columns is None else [name for name in columns if name in names] for names in there]
        tables = [self._folder.table(shard, some) for shard, some in zip(shards, own, strict=True)]
        whole = pa.concat_tables(tables, promote_options="default").replace_schema_metadata(None)
        return whole if columns is None else whole.select(list(columns))

    @cached_property
    def activations(self) -> xr.Dataset:
        """Activations, opened lazily.

        ``activation`` and ``share`` (clip, phrase, column), ``energy`` (clip, column). The coordinate ``clip`` has
        the names of the clips. NaN where a clip has fewer phrases or columns, failed, or is not finished. The
        times of columns are ``(column + 0.5) * column_seconds`` of the table.

        Raises
        ------
        CorpusError
            If the plan keeps none.
        """
        store = self._folder.activations
        if store is None:
            raise CorpusError(f"The plan of {self.folder} keeps no activations (keep.activations = false).")
        return store.dataset().assign_coords(clip=self.clips["clip"].to_numpy(dtype=object))

    @public
    def align(
        self,
        *,
        n_resamples: int = 1000,
        n_permutations: int = 1000,
        seed: int = 0,
        progress: Callable[[str, float], object] | None = None,
    ) -> CorpusAlignment:
        """Score the maps of all finished clips together, with controls and intervals.

        Statistics and controls are those of `Alignment.pool` (constant, energy, reversed, another clip's map,
        order; bootstrap over source recordings and clips; exchanges of maps between clips). Phrases are read in
        blocks, so memory holds about 1 KB of each.

        Parameters
        ----------
        n_resamples, n_permutations, seed : int
            See `Alignment.pool` and `attnviz.align`.
        progress : callable, optional
            Called with the name of a part of the work, and the share of it that is done.

        Returns
        -------
        CorpusAlignment
            ``.pooled`` and ``.summary()``.

        Raises
        ------
        CorpusError
            If the plan keeps no activations, a shard is damaged, or no phrase was scored: the plan asks for no
            scores, all clips failed, or none is finished.
        OutputError
            If the folder of temporary files (``TMPDIR``) is full: a phrase needs about 10 KB there.
        """
        return align_corpus(
            self._folder, n_resamples=n_resamples, n_permutations=n_permutations, seed=seed, progress=progress
        )

    @public
    def maps(self, clip: str) -> AttentionMaps:
        """Load the full maps of a clip of the sample.

        Raises
        ------
        CorpusError
            If the clip is unknown, or its maps were not kept.
        """
        path = self._folder.sample_path(self._index(clip)) / "maps.zarr"
        if not path.exists():
            every = self.plan.keep.sample_every
            kept = f"1 of {every} clips has" if every > 1 else "every clip has" if every else "no clip has"
            raise CorpusError(
                f"The maps of {clip!r} were not kept: {kept} them (keep.sample_every = {every}), unless it failed."
            )
        return AttentionMaps.load(path)

    @public
    def clip_files(self, clip: str) -> Path:
        """Return the folder of the further files of a clip (``ClipResult.files``), of a task of one's own.

        Raises
        ------
        CorpusError
            If the clip is unknown, or has no such files.
        """
        path = self._folder.files_path(self._index(clip))
        if not path.exists():
            raise CorpusError(f"{self.folder} has no files of {clip!r}: it failed, or its task keeps none.")
        return path

    def _index(self, clip: str) -> int:
        if clip not in self._places:
            raise CorpusError(f"{self.folder} has no clip {clip!r}; its first ones are {[*self._places][:5]}.")
        return self._places[clip]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {clip.clip: clip.index for clip in read_clips(self._folder.clips_path)}

    @public
    def status(self) -> CorpusStatus:
        """Return what is finished, what failed and why, and what a clip costs.

        Raises
        ------
        CorpusError
            If a shard is damaged or of another plan.
        """
        done = self._folder.done()
        self.__dict__.pop("_done", None)
        clips = failed = warned = 0
        reasons: dict[str, list[tuple[str, str]]] = {}  # with the clip, by their text without names of clips
        with_failures = []
        for shard in done:
            rows = self._folder.table(shard, ["index", "clip", "status", "reason", "warnings"])
            rows = rows.group_by("index").aggregate([(name, "min") for name in rows.column_names[1:]])
            clips += len(rows)
            warned += pc.sum(pc.cast(pc.not_equal(rows["warnings_min"], ""), pa.int64())).as_py() or 0
            wrong = rows.filter(pc.equal(rows["status_min"], FAILED))
            failed += len(wrong)
            if len(wrong):
                with_failures.append(shard)
            for clip, reason in zip(wrong["clip_min"].to_pylist(), wrong["reason_min"].to_pylist(), strict=True):
                reasons.setdefault(reason.replace(clip, ""), []).append((reason, clip))
        counts = {
            f"{same[0][0]} (clip {same[0][1]!r}{', ...' * (len(same) > 1)})": len(same)
            for same in reasons.values()
        }
        return CorpusStatus(
            folder=str(self.folder), digest=self.digest, clips=len(self), shards=self._folder.n_shards,
            clips_done=clips, shards_done=len(done), clips_failed=failed, clips_warned=warned,
            reasons=dict(sorted(counts.items(), key=lambda item: -item[1])),
            shards_with_failures=tuple(with_failures), seconds_per_clip=self._seconds(done),
            bytes_per_clip=self._bytes() / clips if clips else float("nan"),
        )  # fmt: skip

    def _seconds(self, done: Sequence[int]) -> float:
        seconds = clips = 0.0
        for shard in done:
            # Killed between the table and its costs, which are no results; or somebody has changed them.
            with suppress(AttnVizError, LookupError, TypeError, ValueError):
                costs: dict[str, Any] = read_json(self._folder.log_path(shard))
                spent, number = float(costs["seconds"]), int(costs["clips"])
                seconds, clips = seconds + spent, clips + number
        return seconds / clips if clips else float("nan")

    def _bytes(self) -> int:
        kept = [self.folder / name for name in ("shards", "activations.zarr", "samples", "files")]
        return sum(path.stat().st_size for root in kept for path in root.rglob("*") if path.is_file())

    @public
    def collect(self, path: FilePath, *, overwrite: bool = False, verify: bool = True) -> int:
        """Write the tables of all shards to one Parquet file.

        Parameters
        ----------
        path : path-like
            File to write.
        overwrite : bool
            Replace a table that was collected before.
        verify : bool
            Compare the activations of every shard with their checksum. Tables are always compared.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        CorpusError
            If a shard is missing, damaged or of another plan.
        OutputError
            If the file exists and may not be replaced, or cannot be written.
        """
        if missing := self._folder.missing():
            raise CorpusError(
                f"{counted(len(missing), 'shard')} of {self._folder.n_shards} missing, first {missing[0]}. Run "
                "the plan again: it computes what is missing."
            )
        if verify:
            for shard in range(self._folder.n_shards):
                self._folder.arrays(shard)
        schema = pa.unify_schemas(
            [pq.read_schema(file).remove_metadata() for file in self.files], promote_options="default"
        ).with_metadata({"attnviz.digest": self.digest})
        rows = 0
        with (
            whole_or_nothing(path, overwrite=overwrite, replaceable=_is_collected) as partial,
            pq.ParquetWriter(partial, schema) as writer,
        ):
            for shard in range(self._folder.n_shards):
                table = self._folder.table(shard)
                missing_columns = [name for name in schema.names if name not in table.column_names]
                for name in missing_columns:
                    table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
                writer.write_table(table.select(schema.names).cast(schema))
                rows += len(table)
        return rows


def _is_collected(path: Path) -> bool:
    """Return whether a file was written by `Corpus.collect`."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return b"attnviz.digest" in metadata and b"attnviz.shard" not in metadata
