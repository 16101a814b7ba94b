"""Read the table of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attnviz.errors import CorpusError


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of the table of a shard, with its checksums compared.

    Raises
    ------
    CorpusError
        If a column is unknown, or the file is damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if unknown := sorted(set(columns or ()) - set(names)):
                raise CorpusError(f"{path} has no column {unknown}; it has {', '.join(names)}.")
            return file.read(None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as damage:
        raise CorpusError(
            f"shard {path} is damaged: {str(damage).splitlines()[0].rstrip('.')}. Remove it, and run the "
            "plan again."
        ) from damage
