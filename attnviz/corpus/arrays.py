"""Activations of a corpus: one zarr 3 store whose shards are those of the corpus.

A region that is not exactly a shard is refused. zarr itself writes it without an error by reading, changing and
writing back the whole shard, so that two workers of one shard lose each other's data.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from attnviz.errors import CorpusError, OutputError

ACTIVATION, SHARE, ENERGY = "activation", "share", "energy"
_DIMS: Mapping[str, tuple[str, ...]] = {
    ACTIVATION: ("clip", "phrase", "column"),
    SHARE: ("clip", "phrase", "column"),
    ENERGY: ("clip", "column"),
}
DTYPES = {ACTIVATION: "float32", SHARE: "float64", ENERGY: "float32"}
_CLIPS_AT_ONCE = 16  # clips of a chunk, the smallest part that is read


@dataclass(frozen=True)
class ActivationStore:
    """Arrays ``(clip, phrase, column)`` of a corpus.

    ``activation`` is the curve of each phrase, ``share`` the fraction of each column that its events cover, and
    ``energy`` ``(clip, column)`` the log energy of the spectrogram. NaN beyond a clip's columns and phrases.

    Attributes
    ----------
    path : pathlib.Path
    clips, clips_per_shard, slots, columns : int
        ``slots`` is the number of phrases of a clip.
    """

    path: Path
    clips: int
    clips_per_shard: int
    slots: int
    columns: int

    def shape(self, name: str, clips: int) -> tuple[int, ...]:
        """Return the shape of one array with a number of clips."""
        sizes = {"clip": clips, "phrase": self.slots, "column": self.columns}
        return tuple(sizes[dim] for dim in _DIMS[name])

    def create(self) -> None:
        """Create the arrays, without values.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        chunk = math.gcd(self.clips_per_shard, _CLIPS_AT_ONCE)
        try:
            # zarr warns that consolidated metadata is not part of the zarr 3 specification.
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                group = zarr.create_group(store=self.path, zarr_format=3, overwrite=True)
                for name, dtype in DTYPES.items():
                    group.create_array(
                        name,
                        shape=self.shape(name, self.clips),
                        chunks=self.shape(name, chunk),
                        shards=self.shape(name, self.clips_per_shard),
                        dtype=dtype,
                        fill_value=float("nan"),
                        dimension_names=_DIMS[name],
                    )
                zarr.consolidate_metadata(self.path)
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}. Is the disk full?") from error

    def clear_partial(self) -> None:
        """Remove what killed workers were writing; only the holder of the corpus' lock may do so."""
        for path in self.path.glob("*/c/**/*.partial"):
            path.unlink(missing_ok=True)

    def write_region(self, name: str, start: int, values: np.ndarray) -> None:
        """Write the values of a shard.

        Parameters
        ----------
        name : str
        start : int
            First clip.
        values : numpy.ndarray, shape (clips, ...)

        Raises
        ------
        CorpusError
            If the region is not exactly one shard.
        OutputError
            If it cannot be written.
        """
        stop = min(start + self.clips_per_shard, self.clips)
        if (
            not 0 <= start < self.clips
            or start % self.clips_per_shard
            or values.shape != self.shape(name, stop - start)
        ):
            raise CorpusError(
                f"A region of {name} that starts at clip {start} with shape {values.shape} is not a shard of "
                f"{self.path}: shards begin at multiples of {self.clips_per_shard} and have the shape "
                f"{self.shape(name, self.clips_per_shard)} (the last one fewer clips). zarr would write it "
                "without an error, and workers of one shard would lose each other's data."
            )
        try:
            self._group[name][start:stop] = values
        except OSError as error:
            raise OutputError(
                f"Cannot write {self.path / name}: {error.strerror or error}. Is the disk full?"
            ) from error

    def read_region(self, name: str, start: int) -> np.ndarray:
        """Return the values of the shard that starts at a clip.

        Raises
        ------
        CorpusError
            If they are missing or damaged.
        """
        stop = min(start + self.clips_per_shard, self.clips)
        with self._readable(f"{name} of the clips {start} to {stop - 1}"):
            return np.asarray(self._group[name][start:stop])

    def dataset(self) -> xr.Dataset:
        """Open the arrays lazily.

        Raises
        ------
        CorpusError
            If they are missing or damaged.
        """
        with self._readable("the arrays"), warnings.catch_warnings(action="ignore", category=UserWarning):
            return xr.open_zarr(self.path, chunks=None, zarr_format=3)

    @contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        """Translate what zarr and its codecs raise on files that are missing or damaged."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, LookupError, TypeError) as damage:
            raise CorpusError(
                f"{self.path} is missing or damaged: {what} cannot be read ({damage}). Remove the tables of these "
                "clips in shards, and run the plan again; or all of it, if zarr.json is lost."
            ) from damage

    @cached_property
    def _group(self) -> zarr.Group:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return zarr.open_group(self.path, mode="r+", zarr_format=3)


def checksum(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's values, by which a lost or altered file of a shard is noticed."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
