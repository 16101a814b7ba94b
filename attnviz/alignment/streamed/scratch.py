"""Scratch files: rows of numbers on disk, and bootstrap weights that are drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attnviz.alignment.bootstrap import Bootstrap
from attnviz.errors import OutputError


class RowFile:
    """Rows of one width in a file, appended and then read by range or by number.

    Parameters
    ----------
    path : pathlib.Path
    width : int
        Numbers of a row.
    dtype : str
    """

    def __init__(self, path: Path, width: int, dtype: str) -> None:
        self.path, self.width, self.dtype = path, width, np.dtype(dtype)
        self.rows = 0
        path.touch()

    def append(self, rows: np.ndarray) -> None:
        """Append rows.

        Raises
        ------
        OutputError
            If the disk is full.
        """
        try:
            with self.path.open("ab") as file:
                file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        except OSError as error:
            raise OutputError(
                f"Cannot write the scratch file {self.path}: {error.strerror or error}. Is the disk full? TMPDIR "
                "names another folder."
            ) from error
        self.rows += len(rows)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows of a range, in memory."""
        count = (min(stop, self.rows) - start) * self.width
        offset = start * self.width * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count, offset=offset).reshape(-1, self.width)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows by number, in memory."""
        mapped = np.memmap(self.path, self.dtype, "r", shape=(self.rows, self.width))
        return np.asarray(mapped[numbers])

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Return a range of columns of all rows, in memory."""
        mapped = np.memmap(self.path, self.dtype, "r", shape=(self.rows, self.width))
        return np.array(mapped[:, start:stop])


class DrawnBootstrap(Bootstrap):
    """A bootstrap whose weights are drawn once and kept on disk."""

    @classmethod
    def of(cls, bootstrap: Bootstrap, path: Path) -> DrawnBootstrap:
        """Draw all weights of a bootstrap into a new file."""
        found = cls(bootstrap.units, bootstrap.n_resamples, bootstrap.seed, bootstrap.clips)
        file = RowFile(path, max(found.count, 1), "uint16")
        for batch in bootstrap.weights():
            file.append(batch)
        found.__dict__["_drawn"] = file
        return found

    def weights(self) -> Iterator[np.ndarray]:
        """Yield the number of draws of each group, ``(resamples, groups)``, in batches of resamples."""
        file: RowFile = self.__dict__["_drawn"]
        step = max(1, _NUMBERS_AT_ONCE // file.width)
        for start in range(0, file.rows, step):
            yield file.read(start, start + step)


_NUMBERS_AT_ONCE = 2_000_000
